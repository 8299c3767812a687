"""A column of texts on disk, for any number of them: where each begins, and the bytes of all.

The two files are the buffers of an Arrow large_string array, so that a column is mapped, sorted
and taken from by Arrow, and never becomes Python objects but for the rows that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import Checked

STARTS, BYTES = "starts", "text"
_ROWS_AT_ONCE = 1 << 17


class StringColumn:
    """A column of n texts, checked before they are read; see ``write_strings``.

    Raises:
        SchnRayError: the two files do not fit.
    """

    def __init__(self, files: Mapping[str, Checked], name: str, n: int) -> None:
        self._starts_file = files[f"{name}.{STARTS}"]
        self._bytes_file = files[f"{name}.{BYTES}"]
        self._starts = self._starts_file.array(np.int64)
        if len(self._starts) != n + 1:
            raise SchnRayError(f"{self._starts_file.path} is damaged; make the index again")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the texts of these rows.

        Raises:
            SchnRayError: what is read there is damaged.
        """
        return [text.decode() for text in self.take_bytes(rows)]

    def take_bytes(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the texts of these rows, as UTF-8."""
        self._starts_file.touch(8 * rows, 8 * rows + 16)
        starts, stops = self._starts[rows], self._starts[rows + 1]
        self._bytes_file.touch(starts, stops)
        data = self._bytes_file.data
        return [data[low:high] for low, high in zip(starts.tolist(), stops.tolist(), strict=True)]

    def find(self, text: str) -> int | None:
        """Return the row of a text in an ascending column, None where it is not."""
        wanted, low, high = text.encode("utf-8", "surrogatepass"), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.take_bytes(np.array([middle]))[0] < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < len(self) and self.take_bytes(np.array([low]))[0] == wanted
        return low if found else None

    def whole(self) -> pa.LargeStringArray:
        """Return the column, mapped; checked as a whole."""
        self._starts_file.touch_all()
        self._bytes_file.touch_all()
        return _array(self._starts, self._bytes_file.data)


class StringColumnWriter:
    """Appends texts to a column's two files; ``map_strings`` reads them back unchecked."""

    def __init__(self, folder: Path, name: str) -> None:
        self._paths = _paths(folder, name)
        self._starts, self._bytes = (path.open("wb") for path in self._paths)
        self._size = 0
        self._starts.write(np.zeros(1, np.int64).tobytes())

    def append(self, texts: pa.LargeStringArray) -> None:
        """Write texts without nulls behind those that are there."""
        _, starts, data = texts.buffers()
        offsets = np.frombuffer(starts, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        if len(texts):
            self._starts.write((offsets[1:] - offsets[0] + self._size).tobytes())
            self._bytes.write(memoryview(data)[offsets[0] : offsets[-1]] if data else b"")
            self._size += int(offsets[-1] - offsets[0])

    def close(self) -> None:
        """Write what is still held."""
        self._starts.close()
        self._bytes.close()


def write_strings(folder: Path, name: str, parts: Iterable[pa.LargeStringArray]) -> None:
    """Write a column as ``NAME.starts`` (int64 [n + 1]) and ``NAME.text`` (UTF-8)."""
    writer = StringColumnWriter(folder, name)
    for part in parts:
        writer.append(part)
    writer.close()


def map_strings(folder: Path, name: str) -> pa.LargeStringArray:
    """Return a column that was just written, mapped."""
    starts, text = _paths(folder, name)
    return _array(np.memmap(starts, np.int64, "r"), _mapped(text))


def in_order(texts: pa.LargeStringArray, order: NDArray[Any]) -> Iterator[pa.LargeStringArray]:
    """Take texts in an order, a piece at a time, so that memory never holds them all."""
    for start in range(0, len(order), _ROWS_AT_ONCE):
        yield texts.take(pa.array(order[start : start + _ROWS_AT_ONCE]))


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.{STARTS}", folder / f"{name}.{BYTES}"


def _mapped(path: Path) -> Any:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else b""


def _array(starts: NDArray[Any], data: Any) -> pa.LargeStringArray:
    buffers = [pa.py_buffer(starts), pa.py_buffer(data)]
    return pa.LargeStringArray.from_buffers(len(starts) - 1, *buffers)
