"""Copies on this machine of finished directories that lie in an object store.

``SCHN_RAY_CACHE`` says where copies go, by default ``~/.cache/schn-ray``. A copy is called by the
fingerprint of what it is a copy of, so another store at the same address is another copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.files import as_location, chunks_of, is_uri, join, read_file

CACHE = "SCHN_RAY_CACHE"
_AT_ONCE = 4  # files that are copied at a time
_WAIT_S = 6 * 3600.0  # for another process of this machine that copies the same


def cache_folder() -> Path:
    """Return the folder for copies and for what can be found out again."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or Path(usual, "schn-ray"))


def local_copy(place: Path | str, below: str = "") -> Path:
    """Return the directory itself, or of one at a URI a copy that agrees with its hashes.

    Args:
        place: a finished directory.
        below: a folder of it, if only that is wanted, and the manifest.

    Raises:
        SchnRayError: nothing finished there, or a file that differs from its manifest.
    """
    location = as_location(place)
    if not is_uri(location):
        return place if isinstance(place, Path) else Path(location)
    manifest = _manifest_of(location)
    copy = cache_folder() / "copies" / f"{manifest['fingerprint']}{below and '-'}{below}"
    if (copy / MANIFEST).is_file():
        return copy
    with locked(copy.with_name(f"{copy.name}.lock"), copy, _WAIT_S):
        if not (copy / MANIFEST).is_file():  # another process may have made it meanwhile
            _fill(location, copy, manifest, below)
    return copy


def directory_kind(location: str) -> str:
    """Return the kind of a finished directory, or "" where nothing says it."""
    try:
        return str(json.loads(read_file(join(location, MANIFEST)))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _manifest_of(location: str) -> dict[str, Any]:
    try:
        values = json.loads(read_file(join(location, MANIFEST)))
        return {"fingerprint": values["fingerprint"], "files": dict(values["files"])} | values
    except OSError as error:
        raise SchnRayError(
            f"{location}: nothing finished there ({MANIFEST}: {error}). Was the command that "
            "writes it stopped? Then run it again"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SchnRayError(f"{location}/{MANIFEST} is damaged; make it again") from error


def _fill(location: str, copy: Path, manifest: dict[str, Any], below: str) -> None:
    for name in manifest["files"]:
        if not (copy / name).resolve().is_relative_to(copy.resolve()):
            raise SchnRayError(f"{location}/{MANIFEST} names {name}, which leads out of it")
    files = {n: sha for n, sha in manifest["files"].items() if n.startswith(below and f"{below}/")}
    wanted = {name: sha for name, sha in files.items() if not _is_there(copy, name)}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [pool.submit(_fetch, location, name, copy, sha) for name, sha in wanted.items()]
        for job in jobs:
            job.result()
    write_atomically(copy / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def _is_there(copy: Path, name: str) -> bool:
    return (copy / name).is_file()  # renamed only after its hash was right


def _fetch(location: str, name: str, copy: Path, sha256: str) -> None:
    target = copy / name
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    try:
        with beside.open("wb") as file:
            for chunk in chunks_of(join(location, name)):
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SchnRayError(f"{location}/{name} cannot be copied to {target}: {error}") from error
    if digest.hexdigest() != sha256:
        beside.unlink()
        raise SchnRayError(f"{location}/{name} differs from its manifest; make it again")
    beside.rename(target)
