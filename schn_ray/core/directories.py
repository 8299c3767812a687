"""Write the directories that verbs make, so that a finished one is always complete.

``new_directory`` is for verbs that are quick enough to start over: they write a hidden directory
next to the output, which is renamed when it is complete. ``resumable_directory`` is for verbs that
continue where they were stopped: they write in place, first their request and last their manifest.
Either way, a directory without ``manifest.json`` is unfinished, and no verb reads it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import (
    PARTIAL,
    cannot_write,
    is_write_error,
    sha256_file,
    write_json,
    writing,
)
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError, SourceHasChanged
from schn_ray.core.locks import locked
from schn_ray.core.manifest import (
    MANIFEST,
    REQUEST,
    Manifest,
    format_of,
    library_versions,
    parse_manifest,
    request_fingerprint,
)

LOCK = ".lock"
_FORMAT = "format"  # in a request: version of the layout of what is written already
PROBE_PREFIX = ".seen-"  # of a file by which nodes prove that they share a disk
_BEGUN = (REQUEST, REQUEST + PARTIAL, LOCK)  # what a process killed at its start may leave

SameInputs = Callable[[dict[str, Any]], Collection[str]]
"""Recorded inputs -> names of those that are the request's own, although recorded otherwise."""


def _as_recorded(_: dict[str, Any]) -> Collection[str]:
    """Return no names: inputs are the same if they are recorded alike."""
    return ()


@dataclass
class DirectoryWriter:
    """A directory that is being written.

    Attributes:
        path: where to put files.
        counts: what the verb counted, for the manifest.
        request: see ``request_of``.
        known: name -> SHA-256 and size in bytes of files that are already hashed; the others are
            read and hashed at the end.
        notes: beside the request while the directory is unfinished, for a run after a kill.
        left_out: folders that the manifest does not list: they go when it is written.
    """

    path: Path
    counts: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    known: dict[str, tuple[str, int]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def begin(self) -> None:
        """Mark the directory as unfinished, before files of a finished one are changed."""
        layout = {_FORMAT: format_of(self.request["kind"])}
        write_json(self.path / REQUEST, self.request | layout | self.notes)
        with writing(self.path / MANIFEST):
            (self.path / MANIFEST).unlink(missing_ok=True)


class AlreadyDone(Exception):
    """The directory is finished, and was made by the same request: nothing is left to do.

    Args:
        path: the directory.
        kind: see ``Manifest``.
        location: what the message calls the directory, if not ``path``.
        note: the end of the message.
    """

    def __init__(self, path: Path, kind: str, location: str | None = None, note: str = "") -> None:
        super().__init__(f"{location or path} is finished already; nothing to do{note}")
        self.path, self.kind, self.location, self.note = path, kind, location, note


@contextmanager
def new_directory(
    path: Path, kind: str, config: dict[str, Any], made_from: dict[str, Any]
) -> Iterator[DirectoryWriter]:
    """Let the block write a new directory, which becomes ``path`` if the block succeeds.

    If it fails, nothing is left; what a killed process left is removed by the next call.

    Args:
        path: the output directory; new, empty, or made by the same request.
        kind: see ``Manifest``.
        config: settings of the verb.
        made_from: name of each input -> its fingerprint.

    Yields:
        The writer; its path is a hidden directory next to ``path``.

    Raises:
        AlreadyDone: ``path`` was finished by the same request.
        SchnRayError: ``path`` holds something else, or another process writes it now.
    """
    request = request_of(kind, config, made_from)
    with scratch_folder(path, lambda: _refuse_other_content(path, request)) as partial_path:
        writer = DirectoryWriter(partial_path)
        with _readable_errors(partial_path):
            yield writer
        write_manifest(partial_path, request, writer)
        with writing(path):
            if path.exists() and _holds_nothing(path):
                shutil.rmtree(path)
            partial_path.rename(path)


@contextmanager
def scratch_folder(out: Path, before: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Let the block write in a hidden folder next to its output, which is removed at the end.

    The folder has the output's name, so what a killed process left in it is removed by the next
    run of the same command.

    Args:
        out: the file or directory that is made of the folder's content.
        before: called before and under the lock; what it raises ends the block before it begins.

    Yields:
        The empty folder.

    Raises:
        SchnRayError: another process writes ``out`` now, or the folder cannot be written.
    """
    folder, lock = (out.with_name(f".{out.name}{end}") for end in (PARTIAL, LOCK))
    try:
        before()
    except AlreadyDone:
        if folder.exists() or lock.exists():  # killed between the last step and the end
            with suppress(SchnRayError), locked(lock, out):
                shutil.rmtree(folder, ignore_errors=True)
        raise
    with locked(lock, out):
        before()  # another process may have finished meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        with writing(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked_file(out: Path) -> Iterator[None]:
    """Let the block write a file, and others beside it, while no other process writes it.

    Args:
        out: the file; a missing folder of it is created.

    Raises:
        SchnRayError: another process writes ``out`` now, or its folder cannot be written.
    """
    lock = out.with_name(f".{out.name}{LOCK}")
    with writing(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, out):
        yield


@contextmanager
def resumable_directory(
    path: Path,
    kind: str,
    config: dict[str, Any],
    made_from: dict[str, Any],
    listing: str | None = None,
    update: bool = False,
    free: tuple[str, ...] = (),
    same_inputs: SameInputs = _as_recorded,
) -> Iterator[DirectoryWriter]:
    """Let the block write a directory in place.

    If the block fails, the files that it wrote are left for the next call. If it wrote none, the
    directory is removed.

    Args:
        path: the output directory; new, empty, or begun by the same request.
        kind: see ``Manifest``.
        config: settings of the verb.
        made_from: name of each input -> its fingerprint.
        listing: name of the input that may differ from the directory's if ``update`` is given.
        update: open a finished directory again. The block calls ``DirectoryWriter.begin`` before
            it changes anything.
        free: settings and inputs that may differ from those of an unfinished directory.
        same_inputs: called if inputs are recorded otherwise, such as by an address before a move.

    Yields:
        The writer; its path is ``path``.

    Raises:
        AlreadyDone: ``path`` was finished by the same request.
        SchnRayError: ``path`` holds something else, another process writes it now, or it cannot
            be written.
    """
    request = request_of(kind, config, made_from)
    try:
        _refuse_other_content(path, request, listing, update, free, same_inputs)
    except AlreadyDone:
        _clear_bookkeeping(path)
        raise
    with _readable_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / LOCK, path):
            # another process may have finished it
            _refuse_other_content(path, request, listing, update, free, same_inputs)
            writer = DirectoryWriter(path, request=request)
            try:
                if not update:
                    writer.begin()
                yield writer
            except BaseException:
                if _holds_nothing(path):
                    shutil.rmtree(path)
                raise
            write_manifest(path, request, writer)
            (path / REQUEST).unlink()


def _clear_bookkeeping(path: Path) -> None:
    """Remove what a process leaves that is killed between the manifest and the end."""
    if any((path / name).exists() for name in _BEGUN):
        with suppress(SchnRayError), locked(path / LOCK, path):
            if (path / MANIFEST).is_file():
                (path / REQUEST).unlink(missing_ok=True)


def request_of(kind: str, config: dict[str, Any], made_from: dict[str, Any]) -> dict[str, Any]:
    """Return the request for a directory as JSON would give it back: tuples become lists.

    Args:
        kind: see ``Manifest``.
        config: settings of the verb.
        made_from: name of each input -> its fingerprint.
    """
    request = {"kind": kind, "config": config, "made_from": made_from}
    return dict(json.loads(json.dumps(request)))


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Explain errors of writing below a directory that no ``writing`` has explained."""
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(error.filename).is_relative_to(path)
        if not (is_write_error(error) and ours):
            raise
        raise cannot_write(error, error.filename or path) from error


def _refuse_other_content(
    path: Path,
    request: dict[str, Any],
    listing: str | None = None,
    update: bool = False,
    free: tuple[str, ...] = (),
    same_inputs: SameInputs = _as_recorded,
) -> None:
    if path.is_file():
        raise SchnRayError(f"{path} is a file; name a directory to write")
    if not path.is_dir():
        return
    for name in (MANIFEST, REQUEST):
        if (path / name).is_file():
            may_differ = free if name == REQUEST else ()
            _refuse_other_request(path, name, request, listing, update, may_differ, same_inputs)
            if name == MANIFEST and not update:
                raise AlreadyDone(path, request["kind"])
            return
    if not _holds_nothing(path):
        raise SchnRayError(
            f"{path} holds something that schn-ray did not make; name a new or empty directory"
        )


def _holds_nothing(path: Path) -> bool:
    """Tell whether a directory has no more than a process leaves that is killed at its start."""
    return all(_is_bookkeeping(p.name) for p in path.iterdir())


def _is_bookkeeping(name: str) -> bool:
    return name in _BEGUN or name.startswith(PROBE_PREFIX)


def _refuse_other_request(
    path: Path,
    name: str,
    request: dict[str, Any],
    listing: str | None,
    update: bool,
    free: tuple[str, ...],
    same_inputs: SameInputs,
) -> None:
    data = (path / name).read_bytes()
    if name == MANIFEST:
        parse_manifest(data, path)
    try:
        existing = parse_json(data, str(path / name))
        layout = existing.get(_FORMAT, 3)  # requests of format 3 do not name it
        existing = {key: existing[key] for key in request}
        for part in ("made_from", "config"):
            existing[part] = dict(existing[part])
    except (BadDocument, ValueError, KeyError, TypeError) as error:
        raise SchnRayError(f"{path / name} is damaged; remove {path} to start over") from error
    if layout != format_of(existing["kind"]):
        raise SchnRayError(f"{path} was begun by an older schn-ray; remove it to start over")
    if update and listing is not None:
        existing["made_from"][listing] = request["made_from"][listing]
    for part in ("made_from", "config"):
        fixed = {key: value for key, value in existing[part].items() if key not in free}
        existing[part] = fixed | {key: request[part][key] for key in free if key in request[part]}
    if existing["made_from"] != request["made_from"]:
        for key in same_inputs(existing["made_from"]):
            existing["made_from"][key] = request["made_from"][key]
    lines = difference(existing, request)
    if len(lines) == 1 and lines[0].startswith(f"made_from.{listing}:"):
        raise SourceHasChanged(
            f"{path} was made when the source held other files: take in what is new, changed or "
            "gone with --update"
        )
    if lines:
        raise another_request(path, lines)


def another_request(path: Path | str, lines: Sequence[str]) -> SchnRayError:
    """Return the error of an output that other settings made.

    Args:
        path: of the output.
        lines: the settings that differ, see ``difference``.
    """
    return SchnRayError(
        f"{path} was made by another request; name another directory, or remove it.\n  "
        + "\n  ".join(lines)
    )


def difference(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """List the settings that differ, a line each.

    Args:
        before: nested settings of the existing directory.
        after: nested settings of the request.
        prefix: of the names in the lines.

    Example:
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
    path: Path, request: dict[str, Any], writer: DirectoryWriter, only: Path | None = None
) -> None:
    """Finish a directory: write the manifest, with the hash and size of each file.

    Args:
        path: the directory.
        request: see ``request_of``.
        writer: what the verb counted and hashed.
        only: list only the files below this folder of the directory.
    """
    written = {
        p.relative_to(path).as_posix(): p
        for p in (only or path).rglob("*")
        if p.is_file() and p.name != MANIFEST and not _is_bookkeeping(p.name)
        if p.suffix != PARTIAL and p.relative_to(path).parts[0] not in writer.left_out
    }
    hashed = {
        name: (sha256_file(p), p.stat().st_size)
        for name, p in written.items()
        if name not in writer.known
    } | writer.known
    files = {name: hashed[name][0] for name in sorted(hashed)}
    manifest = Manifest(
        **request,
        counts=writer.counts,
        files=files,
        fingerprint=request_fingerprint(request, files),
        format=format_of(request["kind"]),
        versions=library_versions(),
        sizes={name: hashed[name][1] for name in files},
    )
    write_json(path / MANIFEST, manifest.to_json())
