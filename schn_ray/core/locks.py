"""Being the only process that writes something."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from schn_ray.core.errors import SchnRayError

_LOOK_AGAIN_S = 0.2


@contextmanager
def locked(lock: Path, path: Path | str, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only process that writes ``path``, by a lock file that its death unlocks too.

    Raises:
        SchnRayError: after ``wait_s`` another process still writes it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    while (file := _acquired(lock)) is None:
        if time.monotonic() >= deadline:
            raise SchnRayError(f"another process is writing {path}; wait for it")
        time.sleep(_LOOK_AGAIN_S)
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _acquired(lock: Path) -> IO[str] | None:
    file = lock.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # whoever had it may have removed the file since we opened it: then ours locks nothing
        if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None
