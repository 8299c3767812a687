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

from schn_ray.errors import SchnRayError
from schn_ray.locks import locked
from schn_ray.manifest import MANIFEST, write_atomically
from schn_ray.sources.places import is_uri, join, opened, read_file

CACHE = "SCHN_RAY_CACHE"
_AT_ONCE = 4  # files that are copied at a time
_CHUNK = 1 << 22
_WAIT_S = 6 * 3600.0  # for another process of this machine that copies the same


def cache_folder() -> Path:
    """Return the folder for copies and for what can be found out again."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get(CACHE) or Path(usual, "schn-ray"))


def local_copy(location: str) -> Path:
    """Return the directory itself, or of one at a URI a copy that agrees with its hashes.

    Raises:
        SchnRayError: nothing finished there, or a file that differs from its manifest.
    """
    if not is_uri(location):
        return Path(location)
    manifest = _manifest_of(location)
    copy = cache_folder() / "stores" / str(manifest["fingerprint"])
    if (copy / MANIFEST).is_file():
        return copy
    with locked(copy.with_name(f"{copy.name}.lock"), copy, _WAIT_S):
        if not (copy / MANIFEST).is_file():  # another process may have made it meanwhile
            _fill(location, copy, manifest)
    return copy


def _manifest_of(location: str) -> dict[str, Any]:
    try:
        values = json.loads(read_file(join(location, MANIFEST)))
        return {"fingerprint": values["fingerprint"], "files": dict(values["files"])} | values
    except OSError as error:
        raise SchnRayError(
            f"{location}: no finished store there ({MANIFEST}: {error}); was 'prepare' stopped? "
            "Then run it again"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SchnRayError(f"{location}/{MANIFEST} is damaged; make the store again") from error


def _fill(location: str, copy: Path, manifest: dict[str, Any]) -> None:
    for name in manifest["files"]:
        if not (copy / name).resolve().is_relative_to(copy.resolve()):
            raise SchnRayError(f"{location}/{MANIFEST} names {name}, which leads out of the store")
    wanted = {name: sha for name, sha in manifest["files"].items() if not _is_there(copy, name)}
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
    filesystem, path = opened(join(location, name))
    digest = hashlib.sha256()
    try:
        with (
            filesystem.open_input_stream(path, compression=None) as source,
            beside.open("wb") as to,
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                to.write(chunk)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SchnRayError(f"{location}/{name} cannot be copied to {target}: {error}") from error
    if digest.hexdigest() != sha256:
        beside.unlink()
        raise SchnRayError(f"{location}/{name} differs from its manifest; make the store again")
    beside.rename(target)
