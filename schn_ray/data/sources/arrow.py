"""Arrow and Feather files with a column of images, of their paths, or of vectors."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of, is_uri, size_and_stamp
from schn_ray.data.sources.columns import check_image, image_bytes
from schn_ray.data.sources.tables import Columns, Piece, TableSource

SUFFIXES = (".arrow", ".feather")
_FILE_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class ArrowSource(TableSource):
    """Rows of Arrow files, in the file or in the stream format; the columns are as in Parquet.

    Local files are memory-mapped: a row in the middle costs no more to read than the first.
    """

    kind: str = "arrow"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def describe(self, location: str) -> tuple[pa.Schema, int]:
        """Return the columns and the number of rows of a file."""
        with _reader(location) as reader:
            return reader.schema, sum(batch.num_rows for batch in _all_batches(reader))

    def pieces(
        self, location: str, start: int, count: int, columns: Columns, at_once: int
    ) -> Iterator[Piece]:
        """Yield slices of the batches that hold the rows."""
        yield from _pieces(location, start, count, columns, at_once)

    def values(self, rows: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """Yield column -> value of each row, one at a time, as all at once may not fit."""
        for row in range(len(rows)):
            yield rows.slice(row, 1).to_pylist()[0]


def has_arrow(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has Arrow files.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.endswith(SUFFIXES) for name in names)


def arrow_image(location: str, row: int, column: str) -> bytes:
    """Return the bytes of one image.

    Args:
        location: an Arrow file, a path or a URI.
        row: its number in the file, from 0.
        column: the column with the images.

    Raises:
        IndexError: the file has no such row.
        SchnRayError: not an Arrow file, no such column, or the row has no image.
    """

    def checked_column(schema: pa.Schema) -> list[str]:
        check_image(location, schema, column)
        return [column]

    for _, rows in _pieces(location, row, 1, checked_column, 1):
        return image_bytes(rows[column][0].as_py(), location, row)
    raise IndexError(row)


def _pieces(
    location: str, start: int, count: int, columns: Columns, at_once: int
) -> Iterator[Piece]:
    with _reader(location) as reader:
        names = columns(reader.schema)
        for first, batch in _batches_from(reader, location, start):
            if first >= start + count:
                return
            skip = max(start - first, 0)
            rows = batch.select(names).slice(skip, max(start + count - first - skip, 0))
            for offset in range(0, len(rows), at_once):
                yield first + skip + offset, rows.slice(offset, at_once)


def _batches_from(
    reader: pa.RecordBatchReader, location: str, start: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches with the number of their first row, if possible from the one with ``start``."""
    if isinstance(reader, pa.RecordBatchFileReader) and not is_uri(location):
        # a batch in the middle of a compressed file is not worth decompressing all before it
        starts = _starts(location, size_and_stamp(location)[1])
        for number in range(max(bisect.bisect_right(starts, start) - 1, 0), len(starts) - 1):
            yield starts[number], reader.get_batch(number)
        return
    first = 0
    for batch in _all_batches(reader):
        yield first, batch
        first += batch.num_rows


@functools.lru_cache(maxsize=16)
def _starts(location: str, stamp: str) -> list[int]:
    """Return the number of each batch's first row, and the number of all rows."""
    with _reader(location) as reader:
        return [0, *itertools.accumulate(batch.num_rows for batch in _all_batches(reader))]


def _all_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


@contextlib.contextmanager
def _reader(location: str) -> Iterator[Any]:
    try:
        with _opened(location) as file:
            is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            file.seek(0)
            yield pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{location} cannot be read as Arrow: {error}") from error


def _opened(location: str) -> Any:
    if not is_uri(location):
        return pa.memory_map(location)
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_file(path)
