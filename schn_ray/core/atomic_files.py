"""Write local files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schn_ray.core.errors import SchnRayError

PARTIAL = ".partial"  # ends the name of a file that is being written
_ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "remove files, or get a larger quota",
    errno.EFBIG: "allow larger files (ulimit -f), or name a directory on another file system",
    errno.EROFS: "name a directory that can be written",
    errno.EACCES: "get the right to write there, or name another directory",
    errno.EPERM: "get the right to write there, or name another directory",
    errno.EIO: "look after the disk or its connection",
}


class CannotWrite(SchnRayError):
    """A file cannot be written: the disk is full, read-only or failing, or a right is missing."""


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Name the file, and what to do, where the block cannot write it.

    The block should do nothing but write: every ``OSError`` is taken for one of the file, also
    those without a number or a name, as of ``file.write`` and of libraries in C++.

    Args:
        path: of the file or directory that the block writes.

    Raises:
        CannotWrite: the block raised an ``OSError``.

    Example:
        ``with writing(path), path.open("wb") as file: ...``
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(error, error.filename or path) from error


def is_write_error(error: OSError) -> bool:
    """Tell the errors of a disk that is full, read-only or failing, or of a missing right.

    Args:
        error: of the operating system.
    """
    return error.errno in _ADVICE


def cannot_write(error: OSError, path: Path | str) -> CannotWrite:
    """Return the error that names a file, and what to do.

    Args:
        error: of the operating system, or of a library that passes it on.
        path: of the file.

    >>> print(cannot_write(OSError(errno.ENOSPC, "No space left on device"), "index/codes"))
    cannot write index/codes: No space left on device. Make room and run the same command again
    """
    advice = _ADVICE.get(error.errno or 0, "solve that").capitalize()
    why = (error.strerror or str(error)).rstrip(".")
    return CannotWrite(f"cannot write {path}: {why}. {advice} and run the same command again")


class FileWriter:
    """A new file that is written piece by piece; what goes wrong names it, see ``writing``.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("wb")

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        with writing(self._path):
            self._file.write(data)

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        with writing(self._path):
            self._file.close()

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Args:
        path: of the file; an existing one is replaced.
        value: anything that ``json`` can write.
    """
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, sync it to disk, and rename it.

    Args:
        path: of the file; an existing one is replaced.
        data: its content.

    Raises:
        CannotWrite: the disk is full, say; an existing file is unchanged.
    """
    partial_path = path.with_name(path.name + PARTIAL)
    with writing(path):
        try:
            with partial_path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial_path.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial_path.unlink(missing_ok=True)  # on a full disk
            raise


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Args:
        path: of the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
