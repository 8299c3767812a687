"""Write local files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

PARTIAL = ".partial"  # ends the name of a file that is being written


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
    """
    partial_path = path.with_name(path.name + PARTIAL)
    try:
        with partial_path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial_path.rename(path)
    except OSError:
        partial_path.unlink(missing_ok=True)  # on a full disk
        raise


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Args:
        path: of the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
