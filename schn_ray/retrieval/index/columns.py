"""Columns beside the rows of an index, such as label and year, for filters.

They come from a Parquet or CSV file, joined by id. ``write_columns`` streams the file to disk, maps
what it wrote, and puts it into the order of the index's rows, a piece at a time: memory holds the
order of the file's ids, and no more. A row that the file does not have is missing in all columns.

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.storage.files import as_location, open_file, sha256_and_size
from schn_ray.retrieval.index.checked_files import CheckedFile
from schn_ray.retrieval.index.string_columns import (
    BYTES,
    STARTS,
    StringColumnWriter,
    map_strings,
    order_of_ids,
)
from schn_ray.retrieval.where import KINDS

COLUMNS = "columns"
ID = "id"
_OWN = (ID, "uri")  # every index has these
_ROWS_AT_ONCE = 1 << 17
_CSV_BLOCK = 1 << 24  # bytes; the types of a CSV file's columns are those of its first block
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


class ColumnFile:
    """A Parquet or CSV file with a column ``id`` and others.

    Args:
        path: ends in .parquet or .csv; a path or a URI.
        names: the columns to take; None for all whose types can be filtered.
        kinds: the kinds that these columns must have; None for those of the file.

    Attributes:
        kinds: name -> kind of the columns to take.
        left_out: columns that are not taken since their types cannot be filtered.

    Raises:
        SchnRayError: another kind of file, no ids, no such column, or one of another type.
    """

    def __init__(
        self,
        path: Path | str,
        names: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.location, self._forced = as_location(path), kinds
        with self._batches([]) as (schema, _):
            known = [name for name in schema.names if name not in _OWN]
            if ID not in schema.names:
                raise SchnRayError(
                    f"{path} has no column id, by which its rows are joined with those of the "
                    f"index. Its columns: {', '.join(schema.names)}"
                )
            for name in names or ():
                if name not in known:
                    hint = nearest(name, known) or "."
                    raise SchnRayError(
                        f"{path}: no column {name!r}{hint} Columns: {', '.join(known)}"
                        if name not in _OWN
                        else f"{name!r} of {path} is a column that every index has; leave it out"
                    )
            repeated = {name for name in schema.names if schema.names.count(name) > 1}
            if repeated:
                raise SchnRayError(f"{path} has more than one column {min(repeated)!r}")
            of_file = {name: kind_of(schema.field(name).type) for name in names or known}
            bad = [name for name, kind in of_file.items() if kind is None]
            if bad and names is not None:
                raise SchnRayError(
                    f"{path}: the column {bad[0]!r} is {schema.field(bad[0]).type}; a filter takes "
                    "texts, numbers, booleans, dates and times"
                )
        self.left_out = tuple(bad)
        self.kinds: Mapping[str, str] = {n: kind for n, kind in of_file.items() if kind is not None}
        if not self.kinds:
            raise SchnRayError(f"{path} has no columns to filter by, but id")
        if kinds is not None:
            self._require(kinds)

    def _require(self, kinds: Mapping[str, str]) -> None:
        for name, kind in kinds.items():
            own = self.kinds[name]
            if own != kind and (own, kind) not in (("integer", "number"), ("date", "time")):
                raise SchnRayError(
                    f"{self.location}: the column {name!r} is of the kind {own}, in the index of "
                    f"the kind {kind}"
                )
        self.kinds = dict(kinds)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file."""
        return sha256_and_size(self.location)[0]

    def gathered(self, folder: Path) -> KeyedColumns:
        """See ``ColumnSource``; rows are written to the folder as they come.

        Raises:
            SchnRayError: an id that is missing or comes twice, or a value of another type.
        """
        rows, kinds = 0, list(self.kinds.values())
        with ExitStack() as stack:
            ids = stack.enter_context(StringColumnWriter(folder, ID))
            writers = [stack.enter_context(ColumnWriter(folder, i, k)) for i, k in enumerate(kinds)]
            for batch in self._pieces():
                ids.append(batch.column(0))
                for writer, column in zip(writers, batch.columns[1:], strict=True):
                    writer.append(column)
                rows += batch.num_rows
        if not rows:
            raise SchnRayError(f"{self.location} has no rows")
        mapped = map_strings(folder, ID)
        order = order_of_ids(
            mapped,
            lambda count, id: SchnRayError(
                f"{self.location}: {count} rows repeat an id, such as {id!r}; a row of the index "
                "takes its columns from one row: remove the others"
            ),
        )
        names = self.kinds
        columns = {name: _written(folder, i, k, rows) for i, (name, k) in enumerate(names.items())}
        return KeyedColumns(mapped, order, columns)

    def _pieces(self) -> Iterator[pa.RecordBatch]:
        """Yield batches of the id and the columns to take, of the types in ``where.KINDS``."""
        names = [ID, *self.kinds]
        types = [pa.large_string(), *(KINDS[kind] for kind in self.kinds.values())]
        with self._batches(names) as (_, batches):
            for batch in batches:
                columns = []
                for name, kind in zip(names, types, strict=True):
                    column = batch.column(name)
                    if pa.types.is_dictionary(column.type):
                        column = column.dictionary_decode()
                    try:
                        # finer times than microseconds are cut
                        columns.append(column.cast(kind, safe=not pa.types.is_timestamp(kind)))
                    except pa.ArrowException as error:
                        raise SchnRayError(
                            f"{self.location}: a value of the column {name!r} is no {kind}: {error}"
                        ) from error
                if columns[0].null_count:
                    raise SchnRayError(f"{self.location}: a row has no id")
                yield pa.record_batch(columns, names)

    @contextmanager
    def _batches(
        self, names: Sequence[str]
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Open the file -> its schema, and its rows with these columns."""
        suffix = Path(self.location).suffix.lower()
        if suffix not in (".parquet", ".csv"):
            raise SchnRayError(f"{self.location}: columns come from a .parquet or a .csv file")
        try:
            with open_file(self.location) as file:
                if suffix == ".parquet":
                    parquet = pq.ParquetFile(file)
                    batches = parquet.iter_batches(_ROWS_AT_ONCE, columns=list(names))
                    yield parquet.schema_arrow, batches
                else:
                    reader = self._csv(file, names)
                    yield reader.schema, iter(reader)
        except (OSError, pa.ArrowException) as error:
            raise SchnRayError(f"{self.location} cannot be read: {error}") from error

    def _csv(self, file: pa.NativeFile, names: Sequence[str]) -> pyarrow.csv.CSVStreamingReader:
        forced = {name: KINDS[kind] for name, kind in (self._forced or {}).items()}
        return pyarrow.csv.open_csv(
            file,
            pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                column_types={ID: pa.large_string()} | forced, include_columns=names
            ),
        )


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
        if kind == "text":
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


def kind_of(type: pa.DataType) -> str | None:
    """Return the kind of a column, see ``where.KINDS``; None for one that cannot be filtered.

    Args:
        type: of the column in its file.

    Example:
        >>> kind_of(pa.int16()), kind_of(pa.list_(pa.int16()))
        ('integer', None)
    """
    types = pa.types
    if types.is_dictionary(type):
        type = type.value_type
    tests: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (types.is_string, types.is_large_string, types.is_string_view, types.is_null),
        "integer": (types.is_integer,),
        "number": (types.is_floating, types.is_decimal),
        "boolean": (types.is_boolean,),
        "date": (types.is_date,),
        "time": (types.is_timestamp,),
    }
    kinds = (kind for kind, those in tests.items() if any(test(type) for test in those))
    return next(kinds, None)


def _stem(number: int) -> str:
    return f"column-{number}"


def _written(folder: Path, number: int, kind: str, rows: int) -> pa.Array[Any]:
    """Map a column that this process has just written; nothing is checked."""

    def loaded(ending: str, dtype: type[np.generic]) -> NDArray[Any]:
        path = folder / f"{_stem(number)}.{ending}"
        return np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)

    return _assembled(kind, rows, loaded)


def _assembled(
    kind: str, rows: int, loaded: Callable[[str, type[np.generic]], NDArray[Any]]
) -> pa.Array[Any]:
    """Make an array of its buffers; ``loaded`` returns a file of the column."""
    present = pa.py_buffer(np.packbits(loaded("present", np.uint8), bitorder="little"))
    if kind == "text":
        buffers = [present, *map(pa.py_buffer, (loaded(STARTS, np.int64), loaded(BYTES, np.uint8)))]
        return pa.Array.from_buffers(KINDS[kind], rows, buffers)
    values = loaded("values", _STORED[kind][0])
    if kind == "boolean":
        values = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(KINDS[kind], rows, [present, pa.py_buffer(values)])
