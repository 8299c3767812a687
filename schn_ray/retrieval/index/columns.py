"""Columns beside the rows of an index, such as label and year, for filters.

They come from a file (``column_file``), a store (``stored_columns``) or the index's last version,
joined by id. ``write_columns`` puts them into the order of the index's rows, a piece at a time:
memory holds the order of the ids, and no more. A row that no source has is missing in all columns.

On disk, the file ``columns`` is JSON: name -> kind, see ``where.KINDS``. The i-th column lies in::

    column-i.present: uint8 [n], 0 where the value is missing.
    column-i.values: [n], int64, float64, uint8 (booleans), int32 (days) or int64 (microseconds).
    column-i.starts, column-i.text: instead of values, of a column of texts; see ``string_columns``.
"""

from __future__ import annotations

import bisect
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import CheckedFile
from schn_ray.retrieval.index.string_columns import (
    BYTES,
    STARTS,
    StringColumnWriter,
)
from schn_ray.retrieval.where import KINDS

COLUMNS = "columns"
_ROWS_AT_ONCE = 1 << 17
_STORED: dict[str, tuple[type[np.generic], pa.DataType]] = {
    "integer": (np.int64, pa.int64()),
    "number": (np.float64, pa.float64()),
    "boolean": (np.uint8, pa.uint8()),
    "date": (np.int32, pa.int32()),
    "time": (np.int64, pa.int64()),
}


@dataclass(frozen=True, eq=False)
class KeyedColumns:
    """Columns of m rows with ids, in any order.

    Attributes:
        ids: [m].
        order: int64, the row numbers in the order of the ids; perhaps not of all rows.
        columns: name -> [m], of the types in ``where.KINDS``.
    """

    ids: pa.LargeStringArray
    order: NDArray[np.int64]
    columns: Mapping[str, pa.Array[Any]]

    def rows_of(self, ids: pa.LargeStringArray, first: int) -> tuple[NDArray[np.int64], int]:
        """Return the row of each id, -1 where none has it; and where to go on in ``order``.

        Args:
            ids: ascending.
            first: where in ``order`` to begin; all before are of lesser ids.
        """
        last = ids[-1].as_buffer().to_pybytes()
        stop = bisect.bisect_right(
            self.order, last, first, key=lambda row: self.ids[int(row)].as_buffer().to_pybytes()
        )
        own = self.order[first:stop]
        positions = pc.index_in(ids, self.ids.take(pa.array(own)))
        rows = own[positions.fill_null(0)] if len(own) else np.zeros(len(ids), np.int64)
        return np.where(positions.is_null(), -1, rows), stop


class ColumnSource(Protocol):
    """Where columns come from.

    Attributes:
        kinds: name -> kind, see ``where.KINDS``.
        left_out: columns that are not taken, since their types cannot be filtered.
    """

    @property
    def kinds(self) -> Mapping[str, str]:
        """See above."""

    @property
    def left_out(self) -> Sequence[str]:
        """See above."""

    def gathered(self, folder: Path) -> KeyedColumns:
        """Return the columns, mapped; folder: an existing one for what has to be written."""


class NewColumns(ColumnSource, Protocol):
    """Columns that an index does not have yet."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of what they come from."""


class ColumnWriter:
    """Appends values to a new column, within a ``with`` block.

    Args:
        folder: folder of its files.
        number: of the column.
        kind: of its values, see ``where.KINDS``.
    """

    def __init__(self, folder: Path, number: int, kind: str) -> None:
        self._kind, stem = kind, _stem(number)
        self._present = FileWriter(folder / f"{stem}.present")
        self._values: FileWriter | StringColumnWriter
        if KINDS[kind] == pa.large_string():
            self._values = StringColumnWriter(folder, stem)
        else:
            self._values = FileWriter(folder / f"{stem}.values")

    def append(self, values: pa.Array[Any]) -> None:
        """Append values of the type of the kind; some may be missing."""
        present = values.is_valid().to_numpy(zero_copy_only=False)
        self._present.write(present.astype(np.uint8).tobytes())
        if isinstance(self._values, StringColumnWriter):
            self._values.append(values.fill_null(""))
            return
        dtype, stored = _STORED[self._kind]
        numbers = values.cast(stored).fill_null(0).to_numpy(zero_copy_only=False)
        self._values.write(np.ascontiguousarray(numbers, dtype).tobytes())

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._present.close()
        if isinstance(self._values, StringColumnWriter):
            self._values.__exit__(kind, error, trace)
        else:
            self._values.close()


class IndexColumns:
    """The columns of an opened index; every block is checked before it is read.

    Args:
        files: the index's files by name.
        rows: of the index.

    Attributes:
        kinds: name -> kind; empty for an index without columns.
    """

    def __init__(self, files: Mapping[str, CheckedFile], rows: int) -> None:
        self._files, self._rows = files, rows
        self.kinds: dict[str, str] = {}
        if COLUMNS in files:
            files[COLUMNS].check_all()
            kinds = parse_json(bytes(files[COLUMNS].data), str(files[COLUMNS].path))
            self.kinds = {str(name): str(kind) for name, kind in kinds.items()}

    def read(self, name: str) -> pa.Array[Any]:
        """Return a column, mapped: [n].

        Args:
            name: of ``kinds``.

        Raises:
            SchnRayError: the column is damaged.
        """

        def loaded(ending: str, dtype: type[np.generic]) -> NDArray[Any]:
            file = self._files[f"{_stem(number)}.{ending}"]
            file.check_all()
            return file.array(dtype) if len(file.data) else np.zeros(0, dtype)

        number = list(self.kinds).index(name)
        return _assembled(self.kinds[name], self._rows, loaded)


@dataclass(frozen=True, eq=False)
class ColumnsOfRows:
    """Columns of rows of an index, as a ``ColumnSource`` of its next version.

    Attributes:
        ids: of the index, ascending.
        rows: int64, the rows to take, ascending.
        columns: of the index.
    """

    ids: pa.LargeStringArray
    rows: NDArray[np.int64]
    columns: IndexColumns
    left_out: tuple[str, ...] = ()

    @property
    def kinds(self) -> Mapping[str, str]:
        """The kinds of the columns."""
        return self.columns.kinds

    def gathered(self, folder: Path) -> KeyedColumns:
        """See ``ColumnSource``; nothing is written."""
        columns = {name: self.columns.read(name) for name in self.kinds}
        return KeyedColumns(self.ids, self.rows, columns)


def write_columns(
    folder: Path, ids: pa.LargeStringArray, sources: Sequence[ColumnSource]
) -> dict[str, Any]:
    """Write the columns of an index's rows.

    Args:
        folder: of the index's version.
        ids: of its rows, ascending.
        sources: of the same columns; a row takes its values from the first that has its id.

    Returns:
        For the manifest: the columns, how many rows have no value in any, how many rows of the
        sources have no id of the index, and which columns of a file were left out.

    Raises:
        SchnRayError: no id of the last source is one of the index, or as ``ColumnFile.gathered``.
    """
    if not sources:
        return {}
    raw = folder / "raw"
    with writing(raw):
        raw.mkdir()
    keyed = list[KeyedColumns]()
    for number, source in enumerate(sources):
        (raw / str(number)).mkdir()
        keyed.append(source.gathered(raw / str(number)))
    kinds = dict(sources[0].kinds)
    without, used = 0, np.zeros(len(keyed), np.int64)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(ColumnWriter(folder, number, kind))
            for number, kind in enumerate(kinds.values())
        ]
        for rows in _joined(ids, keyed):
            empty = np.ones(rows.shape[1], np.bool_)
            for name, writer in zip(kinds, writers, strict=True):
                values = _values(keyed, name, rows)
                writer.append(values)
                empty &= values.is_null().to_numpy(zero_copy_only=False)
            without += int(empty.sum())
            used += (rows >= 0).sum(axis=1)
    with FileWriter(folder / COLUMNS) as file:
        file.write(json.dumps(kinds).encode())
    if not used[-1]:
        theirs, ours = (column[0].as_py() for column in (keyed[-1].ids, ids))
        raise SchnRayError(
            f"no id of the columns is one of the index: they look like {theirs!r}, the index's "
            f"like {ours!r}"
        )
    shutil.rmtree(raw)
    counts = {
        "columns": ", ".join(f"{name} ({kind})" for name, kind in kinds.items()),
        "rows_without_columns": without,
        "columns_of_no_row": sum(len(columns.order) for columns in keyed) - int(used.sum()),
    }
    left_out = ", ".join(sources[-1].left_out)
    return counts | ({"columns_left_out": left_out} if left_out else {})


def _joined(ids: pa.LargeStringArray, keyed: Sequence[KeyedColumns]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each source for pieces of the ids: int64 [sources, m], -1 for none."""
    firsts = [0] * len(keyed)
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        piece, rows = ids.slice(start, _ROWS_AT_ONCE), []
        for number, columns in enumerate(keyed):
            own, firsts[number] = columns.rows_of(piece, firsts[number])
            rows.append(own)
        yield np.stack(rows)


def _values(keyed: Sequence[KeyedColumns], name: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
    """Return the values of rows [sources, m]: those of the first source that has the row."""
    taken: pa.Array[Any] | None = None
    for columns, own in zip(reversed(keyed), rows[::-1], strict=True):
        values = columns.columns[name].take(pa.array(own, mask=own < 0))
        taken = values if taken is None else pc.if_else(pa.array(own >= 0), values, taken)
    assert taken is not None
    return taken


def _stem(number: int) -> str:
    return f"column-{number}"


def map_column(folder: Path, number: int, kind: str, rows: int) -> pa.Array[Any]:
    """Map a column that this process has just written; nothing is checked.

    Args:
        folder: folder of its files.
        number: of the column.
        kind: of its values, see ``where.KINDS``.
        rows: how many.
    """

    def loaded(ending: str, dtype: type[np.generic]) -> NDArray[Any]:
        path = folder / f"{_stem(number)}.{ending}"
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)

    return _assembled(kind, rows, loaded)


def _assembled(
    kind: str, rows: int, loaded: Callable[[str, type[np.generic]], NDArray[Any]]
) -> pa.Array[Any]:
    """Make an array of its buffers; ``loaded`` returns a file of the column."""
    present = pa.py_buffer(np.packbits(loaded("present", np.uint8), bitorder="little"))
    if KINDS[kind] == pa.large_string():
        buffers = [present, *map(pa.py_buffer, (loaded(STARTS, np.int64), loaded(BYTES, np.uint8)))]
        return pa.Array.from_buffers(KINDS[kind], rows, buffers)
    values = loaded("values", _STORED[kind][0])
    if kind == "boolean":
        values = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(KINDS[kind], rows, [present, pa.py_buffer(values)])
