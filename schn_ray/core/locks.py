"""Locks between processes: only one process at a time writes a file or directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from schn_ray.core.atomic_files import writing
from schn_ray.core.errors import SchnRayError

_POLL_S = 0.2


@contextmanager
def locked(lock: Path, path: Path | str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock on ``path`` while the block runs.

    The operating system releases the lock of a process that dies, even if it is killed.

    Args:
        lock: the lock file. Its folder is created if missing; the file is removed at the end.
        path: the file or directory that the lock protects; named in the error.
        wait_s: seconds to wait for another process; by default, try once.

    Raises:
        SchnRayError: another process still holds the lock after ``wait_s``.
        CannotWrite: the lock file cannot be written, or its file system has no locks.
    """
    # a lock without flock (fallback_to_soft) would outlive a killed process
    held = FileLock(lock, poll_interval=_POLL_S, thread_local=False, fallback_to_soft=False)
    with writing(lock):
        try:
            held.acquire(timeout=wait_s)
        except Timeout as error:
            raise SchnRayError(f"another process is writing {path}; wait for it") from error
    try:
        yield
    finally:
        # removed while it is held: who locks a removed file notices, and opens a new one
        lock.unlink(missing_ok=True)
        held.release()
