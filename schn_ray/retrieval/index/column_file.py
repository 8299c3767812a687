"""A Parquet or CSV file of columns, such as label and year, to be joined with an index by id.

Its rows are streamed to disk, column by column, and mapped: memory holds no more than their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.storage.files import as_location, open_file, sha256_and_size
from schn_ray.retrieval.index.columns import ColumnWriter, KeyedColumns, map_column
from schn_ray.retrieval.index.string_columns import StringColumnWriter, map_strings, order_of_ids
from schn_ray.retrieval.text_lists import joined_texts
from schn_ray.retrieval.where import KINDS

ID = "id"
_OWN = (ID, "uri")  # every index has these
_WIDENED = (("integer", "number"), ("date", "time"), ("text", "texts"))  # of a file -> of an index
_ROWS_AT_ONCE = 1 << 17
_CSV_BLOCK = 1 << 24  # bytes; the types of a CSV file's columns are those of its first block


def require_file_of(path: Path | str | None, names: Sequence[str] | None) -> None:
    """Check that columns are named of a file only.

    Args:
        path: of the file; None for none.
        names: the columns to take; None for all.

    Raises:
        SchnRayError: columns without a file.
    """
    if path is None and names is not None:
        raise SchnRayError("--columns-of names columns of a file: name it with --columns FILE")


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
                    "texts, lists of texts, numbers, booleans, dates and times"
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
            if own != kind and (own, kind) not in _WIDENED:
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
        columns = {
            name: map_column(folder, i, k, rows) for i, (name, k) in enumerate(names.items())
        }
        return KeyedColumns(mapped, order, columns)

    def _pieces(self) -> Iterator[pa.RecordBatch]:
        """Yield batches of the id and the columns to take, of the types in ``where.KINDS``."""
        names = [ID, *self.kinds]
        types = [pa.large_string(), *(KINDS[kind] for kind in self.kinds.values())]
        lists = {name for name, kind in self.kinds.items() if kind == "texts"}
        with self._batches(names) as (_, batches):
            for batch in batches:
                columns = []
                for name, kind in zip(names, types, strict=True):
                    column = batch.column(name)
                    if pa.types.is_dictionary(column.type):
                        column = column.dictionary_decode()
                    if name in lists:
                        column = joined_texts(column)
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
            raise SchnRayError(
                f"{self.location}: columns come from a .parquet or .csv file, or a store"
            )
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
        "texts": (_is_list_of_texts,),
    }
    kinds = (kind for kind, those in tests.items() if any(test(type) for test in those))
    return next(kinds, None)


def _is_list_of_texts(type: pa.DataType) -> bool:
    of_lists = pa.types.is_list(type) or pa.types.is_large_list(type)
    return of_lists and kind_of(type.value_type) == "text"
