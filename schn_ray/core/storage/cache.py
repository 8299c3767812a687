"""Local copies of finished directories in an object store.

The copies are in ``$SCHN_RAY_CACHE``, by default ``~/.cache/schn-ray``. A copy is named after the
fingerprint of its directory: if the directory at a URI is replaced, it gets a new copy.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from schn_ray.core.atomic_files import write_json
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST, Manifest, parse_manifest
from schn_ray.core.storage.files import as_location, chunks_of, is_uri, join, read_file

CACHE = "SCHN_RAY_CACHE"
COPIES, UNFINISHED = "copies", "unfinished"  # folders of the cache
_DOWNLOADS = 4  # files at the same time
_WAIT_S = 6 * 3600.0  # for another local process that copies the same directory


def cache_folder() -> Path:
    """Return the folder for everything that can be downloaded or computed again."""
    default = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or Path(default, "schn-ray"))


def local_copy(directory: Path | str, below: str = "") -> Path:
    """Return a local directory as it is, or a local copy of one at a URI.

    Every file of a new copy is compared with its SHA-256 in the manifest.

    Args:
        directory: a finished directory.
        below: copy only this folder of it, and the manifest; by default, everything.

    Raises:
        SchnRayError: the directory is unfinished, or a file differs from its manifest.
    """
    location = as_location(directory)
    if not is_uri(location):
        return directory if isinstance(directory, Path) else Path(location)
    manifest = _manifest_of(location)
    copy = cache_folder() / COPIES / f"{manifest.fingerprint}{below and '-'}{below}"
    if (copy / MANIFEST).is_file():
        return copy
    with locked(copy.with_name(f"{copy.name}.lock"), copy, _WAIT_S):
        if not (copy / MANIFEST).is_file():  # another process may have filled it meanwhile
            _fill(location, copy, manifest, below)
    return copy


def directory_kind(location: str) -> str:
    """Return the kind of a finished directory as its manifest has it, or ``""`` without one.

    Args:
        location: of the directory.
    """
    try:
        return str(parse_json(read_file(join(location, MANIFEST)), location)["kind"])
    except (OSError, BadDocument, KeyError, TypeError):
        return ""


def manifest_at(location: str, kind: str | None = None) -> Manifest:
    """Read the manifest of a finished directory, here or at a URI.

    Args:
        location: of the directory.
        kind: the kind that it must have; by default, any.

    Raises:
        OSError: there is none.
        SchnRayError: see ``parse_manifest``.
    """
    return parse_manifest(read_file(join(location, MANIFEST)), location, kind)


def _manifest_of(location: str) -> Manifest:
    try:
        return manifest_at(location)
    except OSError as error:
        raise SchnRayError(
            f"{location}: nothing finished there ({MANIFEST}: {error}). If the command that "
            "writes it was stopped, run it again"
        ) from error


def _fill(location: str, copy: Path, manifest: Manifest, below: str) -> None:
    for name in manifest.files:
        if not (copy / name).resolve().is_relative_to(copy.resolve()):
            raise SchnRayError(f"{location}/{MANIFEST} names {name}, which leads out of it")
    files = {n: sha for n, sha in manifest.files.items() if n.startswith(below and f"{below}/")}
    # a file gets its name only after its hash was right, so existing ones are complete
    missing = {name: sha for name, sha in files.items() if not (copy / name).is_file()}
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        jobs = [pool.submit(_fetch, location, name, copy, sha) for name, sha in missing.items()]
        for job in jobs:
            job.result()
    write_json(copy / MANIFEST, manifest.to_json())


def _fetch(location: str, name: str, copy: Path, sha256: str) -> None:
    target = copy / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_path = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    try:
        with partial_path.open("wb") as file:
            for chunk in chunks_of(join(location, name)):
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:
        partial_path.unlink(missing_ok=True)
        raise SchnRayError(f"{location}/{name} cannot be copied to {target}: {error}") from error
    if digest.hexdigest() != sha256:
        partial_path.unlink()
        raise SchnRayError(f"{location}/{name} differs from its manifest; make it again")
    partial_path.rename(target)
