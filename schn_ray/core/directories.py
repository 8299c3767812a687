"""TODO"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import _UNFINISHED, sha256_file, write_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST, REQUEST, Manifest, _fingerprint, _versions

LOCK = ".lock"
PROBE_PREFIX = ".seen-"  # begins the name of a file that nodes look for, see cluster.shared
_BEGUN = (REQUEST, REQUEST + _UNFINISHED, LOCK)
_CANNOT_WRITE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)


@dataclass
class DirectoryWriter:
    """A directory that is being written: put files under ``path``, say what was counted.

    ``known`` has files whose SHA-256 and size whoever wrote them has told: they are not read again.
    """

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    known: dict[str, tuple[str, int]] = field(default_factory=dict)

    def begin(self) -> None:
        """Call the directory unfinished from here on; a finished one that is brought up to date."""
        write_json(self.path / REQUEST, self.request)
        (self.path / MANIFEST).unlink(missing_ok=True)


class AlreadyDone(Exception):
    """The directory is finished, and was made by the same request: nothing is left to do."""

    def __init__(self, path: Path, kind: str, location: str | None = None) -> None:
        super().__init__(f"{location or path} is finished already; nothing to do")
        self.path, self.kind = path, kind


@contextmanager
def new_directory(
    path: Path, kind: str, config: dict[str, Any], made_from: dict[str, Any]
) -> Iterator[DirectoryWriter]:
    """Write a directory beside ``path`` and rename it into place when the block ends well.

    Raises:
        AlreadyDone: ``path`` was finished by the same request.
        SchnRayError: ``path`` holds something else, or another process writes it now.
    """
    request = request_of(kind, config, made_from)
    _refuse_other_content(path, request)
    beside = path.with_name(f".{path.name}.partial")
    with locked(path.with_name(f".{path.name}.lock"), path):
        _refuse_other_content(path, request)  # another process may have finished meanwhile
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            draft = DirectoryWriter(beside)
            yield draft
            write_manifest(beside, request, draft)
            if path.exists() and _holds_nothing(path):
                shutil.rmtree(path)
            beside.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def resumable_directory(
    path: Path,
    kind: str,
    config: dict[str, Any],
    made_from: dict[str, Any],
    listing: str | None = None,
    update: bool = False,
    free: tuple[str, ...] = (),
) -> Iterator[DirectoryWriter]:
    """Write a directory in place; if the block fails, what it wrote stays for the next call.

    If it wrote nothing, nothing stays.

    Args:
        path: the directory.
        kind: see ``Manifest``.
        config: of the request.
        made_from: of the request.
        listing: the input that an update may take in.
        update: whether that input may differ from the directory's; a finished one is opened again
            then, and the block calls ``DirectoryWriter.begin`` before it changes anything.
        free: settings that may be others than those an unfinished directory was begun with.

    Raises:
        AlreadyDone: ``path`` was finished by the same request.
        SchnRayError: ``path`` holds something else, another process writes it now, or it cannot
            be written.
    """
    request = request_of(kind, config, made_from)
    _refuse_other_content(path, request, listing, update, free)
    with _named_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / LOCK, path):
            # another process may have finished it
            _refuse_other_content(path, request, listing, update, free)
            draft = DirectoryWriter(path, request=request)
            try:
                if not update:
                    draft.begin()
                yield draft
            except BaseException:
                if _holds_nothing(path):
                    shutil.rmtree(path)
                raise
            write_manifest(path, request, draft)
            (path / REQUEST).unlink()


def request_of(kind: str, config: dict[str, Any], made_from: dict[str, Any]) -> dict[str, Any]:
    """Return what a directory is asked to be, as it is read back: tuples become lists."""
    request = {"kind": kind, "config": config, "made_from": made_from}
    return dict(json.loads(json.dumps(request)))


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(error.filename).is_relative_to(path)
        if error.errno not in _CANNOT_WRITE or not ours:
            raise
        raise SchnRayError(
            f"cannot write {error.filename or path}: {error.strerror}. What is there stays: mend "
            "that and run the same command again"
        ) from error


def _refuse_other_content(
    path: Path,
    request: dict[str, Any],
    listing: str | None = None,
    update: bool = False,
    free: tuple[str, ...] = (),
) -> None:
    if path.is_file():
        raise SchnRayError(f"{path} is a file; name a directory to write")
    if not path.is_dir():
        return
    for name in (MANIFEST, REQUEST):
        if (path / name).is_file():
            freely = free if name == REQUEST else ()
            _refuse_other_request(path, name, request, listing, update, freely)
            if name == MANIFEST and not update:
                raise AlreadyDone(path, request["kind"])
            return
    if not _holds_nothing(path):
        raise SchnRayError(
            f"{path} holds something that schn-ray did not make; name a new or empty directory"
        )


def _holds_nothing(path: Path) -> bool:
    """Tell whether nothing is there but what a process may leave that is killed as it begins."""
    return all(_is_of_the_writing(p.name) for p in path.iterdir())


def _is_of_the_writing(name: str) -> bool:
    return name in _BEGUN or name.startswith(PROBE_PREFIX)


def _refuse_other_request(
    path: Path,
    name: str,
    request: dict[str, Any],
    listing: str | None,
    update: bool,
    free: tuple[str, ...],
) -> None:
    try:
        there = json.loads((path / name).read_text())
        there = {key: there[key] for key in request}
        there["made_from"], there["config"] = dict(there["made_from"]), dict(there["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise SchnRayError(f"{path / name} is damaged; remove {path} to start over") from error
    if update and listing is not None:
        there["made_from"][listing] = request["made_from"][listing]
    there["config"] |= {key: request["config"][key] for key in free}
    lines = difference(there, request)
    if len(lines) == 1 and lines[0].startswith(f"made_from.{listing}:"):
        raise SchnRayError(
            f"{path} was made when the source held other files: take in what is new, changed or "
            "gone with --update"
        )
    if lines:
        raise SchnRayError(
            f"{path} was made by another request; name another directory, or remove it.\n  "
            + "\n  ".join(lines)
        )


def difference(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested settings, a line each.

    >>> difference({"bits": 32, "loss": {"cycle": 1}}, {"bits": 16, "loss": {"cycle": 1}})
    ['bits: 32 there, 16 now']
    """
    lines: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += difference(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} there, {new} now")
    return lines


def write_manifest(
    path: Path, request: dict[str, Any], draft: DirectoryWriter, only: Path | None = None
) -> None:
    """Finish a directory: list its files, or those below one folder of it ``only``."""
    written = {
        p.relative_to(path).as_posix(): p
        for p in (only or path).rglob("*")
        if p.is_file() and p.name != MANIFEST and not _is_of_the_writing(p.name)
        if p.suffix != _UNFINISHED
    }
    found = {
        name: (sha256_file(p), p.stat().st_size)
        for name, p in written.items()
        if name not in draft.known
    } | draft.known
    files = {name: found[name][0] for name in sorted(found)}
    fingerprint = _fingerprint(request, files)
    manifest = Manifest(
        **request,
        counts=draft.counts,
        files=files,
        fingerprint=fingerprint,
        versions=_versions(),
        sizes={name: found[name][1] for name in files},
    )
    write_json(path / MANIFEST, asdict(manifest))
