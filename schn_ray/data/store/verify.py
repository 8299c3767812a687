"""Checks a store against its manifest: sizes always, hashes once for each state of its files.

Reading a hundred gigabytes before every run would be slow. So files whose hashes were right are
recorded on this machine, with size, time of change and inode; if one of these differs, the files
are read again.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from schn_ray.core.atomic_files import sha256_file, write_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest
from schn_ray.core.storage.cache import cache_folder

_AT_ONCE = 4  # files that are read at a time


def check_sizes(path: Path, manifest: Manifest) -> None:
    """Compare the sizes of a store's files with its manifest.

    Args:
        path: of the store, local.
        manifest: of the store.

    Raises:
        SchnRayError: a file is missing, or cut short.
    """
    for name, size in manifest.sizes.items():
        file = path / name
        if not file.is_file():
            raise SchnRayError(f"{file} is missing; make the {manifest.kind} again")
        if (actual := file.stat().st_size) != size:
            raise SchnRayError(
                f"{file} is damaged: it has {actual:,} bytes, the manifest says {size:,}; make the "
                f"{manifest.kind} again"
            )


def verify_hashes(path: Path, manifest: Manifest) -> None:
    """Compare the SHA-256 of a store's files with its manifest, unless they were right before.

    Args:
        path: of the store, local.
        manifest: of the store.

    Raises:
        SchnRayError: a file is missing or differs.
    """
    record = cache_folder() / "verified" / f"{manifest.fingerprint}.json"
    now = {name: _state(path / name) for name in manifest.files}
    if _recorded(record).get(str(path)) == now:
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # hashing lets other threads run
        hashes = pool.map(lambda name: sha256_file(path / name), manifest.files)
        for (name, expected), sha256 in zip(manifest.files.items(), hashes, strict=True):
            if sha256 != expected:
                raise SchnRayError(
                    f"{path / name} differs from its manifest; make the {manifest.kind} again"
                )
    with contextlib.suppress(OSError):  # without the record, the next check is only slower
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, _recorded(record) | {str(path): now})


def _state(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError as error:
        raise SchnRayError(f"{file} is missing; make the store again") from error
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _recorded(record: Path) -> dict[str, dict[str, list[int]]]:
    try:
        return dict(json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
