"""A column of strings (ids or uris) on disk: one file of offsets, one file of UTF-8 bytes.

The two files are the buffers of an Arrow large_string array. So Arrow maps the column, sorts it and
selects rows from it, and only the rows that a user sees become Python strings. ``StringColumn``
reads it with every block checked (see ``checked_files``); ``StringColumnWriter`` appends to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import CheckedFile

STARTS, BYTES = "starts", "text"
_ROWS_AT_ONCE = 1 << 17


class StringColumn:
    """A column of n strings that ``write_strings`` wrote; every block is checked before it is read.

    Args:
        files: the index's files by name.
        name: of the column, ``ids`` or ``uris``.
        n: the expected number of strings.

    Raises:
        SchnRayError: the column has another number of strings.
    """

    def __init__(self, files: Mapping[str, CheckedFile], name: str, n: int) -> None:
        self._starts_file = files[f"{name}.{STARTS}"]
        self._bytes_file = files[f"{name}.{BYTES}"]
        self._starts = self._starts_file.array(np.int64)
        if len(self._starts) != n + 1:
            raise SchnRayError(f"{self._starts_file.path} is damaged; make the index again")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the strings of these rows.

        Args:
            rows: int64 [r], row numbers.

        Raises:
            SchnRayError: the blocks that hold them are damaged.
        """
        return [text.decode() for text in self.take_bytes(rows)]

    def take_bytes(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the strings of these rows as UTF-8; as ``take``."""
        self._starts_file.check(8 * rows, 8 * rows + 16)
        starts, stops = self._starts[rows], self._starts[rows + 1]
        self._bytes_file.check(starts, stops)
        data = self._bytes_file.data
        return [data[low:high] for low, high in zip(starts.tolist(), stops.tolist(), strict=True)]

    def find(self, text: str) -> int | None:
        """Return the row of a string by binary search; None if the column does not have it.

        The column must ascend, by UTF-8 bytes.
        """
        target, low, high = text.encode("utf-8", "surrogatepass"), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.take_bytes(np.array([middle]))[0] < target:
                low = middle + 1
            else:
                high = middle
        exists = low < len(self) and self.take_bytes(np.array([low]))[0] == target
        return low if exists else None

    def whole(self) -> pa.LargeStringArray:
        """Return the whole column, mapped; all of it is checked first."""
        self._starts_file.check_all()
        self._bytes_file.check_all()
        return _array(self._starts, self._bytes_file.data)


class StringColumnWriter:
    """Appends strings to a new column, within a ``with`` block.

    Args:
        folder: folder of its two files.
        name: of the column.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._starts, self._bytes = map(FileWriter, _paths(folder, name))
        self._size = 0
        self._starts.write(np.zeros(1, np.int64).tobytes())

    def append(self, strings: pa.LargeStringArray) -> None:
        """Append strings; none of them may be null."""
        _, starts, data = strings.buffers()
        first = strings.offset
        offsets = np.frombuffer(starts, np.int64)[first : first + len(strings) + 1]
        if len(strings):
            self._starts.write((offsets[1:] - offsets[0] + self._size).tobytes())
            self._bytes.write(memoryview(data)[offsets[0] : offsets[-1]] if data else b"")
            self._size += int(offsets[-1] - offsets[0])

    def __enter__(self) -> StringColumnWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._starts.close()
        self._bytes.close()


def write_strings(folder: Path, name: str, parts: Iterable[pa.LargeStringArray]) -> None:
    """Write a column as ``NAME.starts`` (int64 [n + 1]) and ``NAME.text`` (UTF-8).

    Args:
        folder: folder to write to.
        name: of the column.
        parts: its strings, in order, without nulls.
    """
    with StringColumnWriter(folder, name) as writer:
        for part in parts:
            writer.append(part)


def map_strings(folder: Path, name: str) -> pa.LargeStringArray:
    """Map a column that this process has just written; nothing is checked.

    Args:
        folder: folder of its two files.
        name: of the column.
    """
    starts, text = _paths(folder, name)
    return _array(np.memmap(starts, np.int64, "r"), _mapped(text))


def in_order(strings: pa.LargeStringArray, order: NDArray[Any]) -> Iterator[pa.LargeStringArray]:
    """Yield strings in another order, in pieces, so that memory never holds them all.

    Args:
        strings: [n], perhaps mapped.
        order: int64 [m], the row numbers to yield.
    """
    for start in range(0, len(order), _ROWS_AT_ONCE):
        yield strings.take(pa.array(order[start : start + _ROWS_AT_ONCE]))


def order_of_ids(
    ids: pa.LargeStringArray, repeated: Callable[[int, str], SchnRayError]
) -> NDArray[np.int64]:
    """Return the row numbers in the order of the ids: int64 [n].

    Args:
        ids: [n], perhaps mapped.
        repeated: makes the error of how many rows repeat an id, and of such an id.

    Raises:
        SchnRayError: an id comes twice.
    """
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False:  # most listings are in order
        return np.arange(len(ids))
    order: NDArray[np.int64] = pc.sort_indices(ids).to_numpy().view(np.int64)
    twice, last = list[str](), None
    for part in in_order(ids, order):
        shifted = pa.concat_arrays([part[:1] if last is None else last, part[:-1]])
        same = pc.equal(part, shifted)
        twice += part.filter(same).to_pylist()[0 if last is not None else 1 :]
        last = part[-1:]
    if twice:
        raise repeated(len(twice), twice[0])
    return order


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.{STARTS}", folder / f"{name}.{BYTES}"


def _mapped(path: Path) -> Any:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else b""


def _array(starts: NDArray[Any], data: Any) -> pa.LargeStringArray:
    buffers = [pa.py_buffer(starts), pa.py_buffer(data)]
    return pa.LargeStringArray.from_buffers(len(starts) - 1, *buffers)
