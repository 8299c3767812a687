"""The file of a search's study: a line for each step, with a SHA-256 over it and all before it.

Optuna's own file of a journal says nothing of damage: another digit of a score is read as it is,
and what a killed process leaves, half a line, cannot be opened. Here, a line that differs is an
error. Half a line at the end is what a kill leaves: it is left out, and cut off by the next step.
``optuna-dashboard`` could open the file, but what it writes has no digest: ``report/dashboard.py``
gives it a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from schn_ray.core.atomic_files import writing
from schn_ray.core.errors import SchnRayError

_DIGITS = 64
_END = b'"}\n'
_DIGEST = b',"sha256":"'  # the last value of a line
_SUFFIX = len(_DIGEST) + _DIGITS + len(_END)


class CheckedJournal(BaseJournalBackend):
    """The steps of a study in a file; one storage of one process reads and writes it.

    Args:
        path: of the file; created with the first step.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps, self._size, self._digest = 0, 0, b""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the steps that were not read yet.

        Args:
            log_number_from: how many were.

        Raises:
            SchnRayError: a line differs from what was written.
        """
        assert log_number_from == self._steps, "the file has one reader"
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._size)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                text, digest = line[:-_SUFFIX], line[-_SUFFIX:]
                if digest != self._suffix(text):
                    raise SchnRayError(
                        f"{self._path}, line {self._steps + 1}, is damaged: put a copy of the file "
                        "there, or remove the search and run the same command again"
                    )
                self._appended(text, len(line))
                yield json.loads(text + b"}")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append steps; they are on the disk when this returns.

        Args:
            logs: the steps, which JSON can express.

        Raises:
            CannotWrite: the disk is full, say; the file's steps are unchanged.
        """
        before = self._steps, self._size, self._digest
        lines = b""
        for log in logs:
            text = json.dumps(log, separators=(",", ":")).encode()[:-1]
            lines += text + self._suffix(text)
            self._appended(text, len(text) + _SUFFIX)
        self._steps, self._size, self._digest = before  # until they are read
        with writing(self._path), self._path.open("ab") as file:
            file.truncate(self._size)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def _suffix(self, text: bytes) -> bytes:
        return _DIGEST + self._next(text).encode() + _END

    def _next(self, text: bytes) -> str:
        return hashlib.sha256(self._digest + text).hexdigest()

    def _appended(self, text: bytes, size: int) -> None:
        self._digest = self._next(text).encode()
        self._steps, self._size = self._steps + 1, self._size + size
