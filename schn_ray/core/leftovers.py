"""List what killed commands have left in a folder, beside what they have written.

The next run of the same command clears it. Until then, and if that run never comes, it takes room.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schn_ray.core.atomic_files import PARTIAL
from schn_ray.core.directories import LOCK
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.cache import COPIES, UNFINISHED, cache_folder

# what a version before 0.1.0 wrote beside the output of duplicates, and the hidden names of today
_HIDDEN = re.compile(rf"\.duplicates-.+|\.(?P<name>.+)({re.escape(PARTIAL)}|{re.escape(LOCK)})")

_DEPTH = 2  # a folder of outputs, an output, its folder of parts


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody writes any more.

    Attributes:
        path: where it is.
        size: in bytes, with all that is below it.
    """

    path: Path
    size: int


def leftovers(folder: Path) -> list[Leftover]:
    """List what killed commands have left in a folder, or in one up to two below it.

    Args:
        folder: that outputs were written to.
    """
    return [*_below(folder)]


def cache_leftovers() -> list[Leftover]:
    """List copies and outputs for object stores that were left unfinished on this machine."""
    unfinished = [
        path
        for path in _entries(cache_folder() / UNFINISHED)
        if any(entry.name not in (MANIFEST, LOCK) for entry in _entries(path))
        and not _is_held(path.with_name(f"{path.name}{LOCK}"))
    ]
    copies = [
        path
        for path in _entries(cache_folder() / COPIES)
        if path.is_dir() and not (path / MANIFEST).is_file()
        if not _is_held(path.with_name(f"{path.name}{LOCK}"))
    ]
    return [Leftover(path, _size(path)) for path in [*unfinished, *copies]]


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Leftover]:
    locks = [parent / LOCK for parent in (folder, *above)]  # a writer's may be that of a parent
    for path in _entries(folder):
        match = _HIDDEN.fullmatch(path.name)
        if match or path.suffix == PARTIAL:
            if not any(map(_is_held, [folder / f".{match['name']}{LOCK}"] if match else locks)):
                yield Leftover(path, _size(path))
        elif len(above) < _DEPTH and path.is_dir() and not path.is_symlink():
            yield from _below(path, (folder, *above))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # not a folder, or one that may not be read
        return []


def _is_held(lock: Path) -> bool:
    """Tell whether a process that runs now holds a lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _size(path: Path) -> int:
    size = 0 if path.is_dir() else path.stat().st_size
    for root, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a writer has just removed it
                size += Path(root, name).stat().st_size
    return size
