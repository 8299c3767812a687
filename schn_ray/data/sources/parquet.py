"""Parquet with a column of images, of their paths, or of vectors: one file, or a folder of them."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of, is_uri, size_and_stamp
from schn_ray.data.sources.columns import check_image, image_bytes
from schn_ray.data.sources.tables import Columns, Piece, TableSource


@dataclass(frozen=True)
class ParquetSource(TableSource):
    """Rows of Parquet files; the config names the columns.

    The image column holds bytes, a struct with a field ``bytes`` as Hugging Face writes it, or
    paths (see ``listing``). Vectors are lists of numbers. Labels are whole numbers, text, or lists
    of either, with the names that Hugging Face's metadata have; without a label column, rows are
    unlabelled. Without an id column, a row's id is
    ``file.parquet#row``.

    The files may be at a URI. A row's stamp is that of its Parquet file: if that holds paths, an
    update does not notice that an image changed.
    """

    kind: str = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def describe(self, location: str) -> tuple[pa.Schema, int]:
        """Return the columns and the number of rows of a file."""
        with _opened(location) as file:
            return file.schema_arrow, int(file.metadata.num_rows)

    def pieces(
        self, location: str, start: int, count: int, columns: Columns, at_once: int
    ) -> Iterator[Piece]:
        """Stream rows from the row groups that hold them."""
        with _readable(location):
            stream = _stream_at(location, start, columns, at_once)
            yield from stream.take(start, count)
            _idle[:] = [stream]


class _Stream:
    """A Parquet file that is read from some row on.

    Rows in the middle of a row group can only be reached by decoding those before them. So the
    stream of the last shard stays open: the next shard often begins where it ended.
    """

    def __init__(self, location: str, start: int, columns: Columns, at_once: int) -> None:
        self.key = _stream_key(location, at_once)
        self._file = _open(location)
        schema, metadata = self._file.schema_arrow, self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._ends = list(itertools.accumulate(sizes))
        self.names = columns(schema)
        first = bisect.bisect_right(self._ends, start)
        self._row = self._ends[first - 1] if first else 0
        self._batches = self._file.iter_batches(
            at_once, row_groups=list(range(first, len(sizes))), columns=self.names
        )
        self._rest: pa.RecordBatch | None = None

    def reaches(self, start: int, columns: Columns) -> bool:
        """Tell whether a row is ahead, in the same row group, with the same columns."""
        group, group_of_start = (bisect.bisect_right(self._ends, r) for r in (self._row, start))
        same_group = group == group_of_start and self._row <= start
        return same_group and columns(self._file.schema_arrow) == self.names

    def take(self, start: int, count: int) -> Iterator[Piece]:
        """Yield rows [start, start + count), as far as they exist."""
        end = start + count
        while self._row < end:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                return
            first = self._row
            skip = min(max(start - first, 0), len(batch))
            stop = min(end - first, len(batch))
            self._rest = batch.slice(stop) if stop < len(batch) else None
            self._row = first + stop
            if skip < stop:
                yield first + skip, batch.slice(skip, stop - skip)


_idle: list[_Stream] = []  # at most one


def _stream_at(location: str, start: int, columns: Columns, at_once: int) -> _Stream:
    while _idle:  # taken out while it is in use
        stream = _idle.pop()
        if stream.key == _stream_key(location, at_once) and stream.reaches(start, columns):
            return stream
    return _Stream(location, start, columns, at_once)


def _stream_key(location: str, at_once: int) -> tuple[str, str, int]:
    return location, size_and_stamp(location)[1], at_once


def has_parquet(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has Parquet files.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.endswith(".parquet") for name in names)


def parquet_image(path: str, row: int, column: str) -> bytes:
    """Return the bytes of one image.

    Args:
        path: a Parquet file, a path or a URI.
        row: its number in the file, from 0.
        column: the column with the images.

    Raises:
        IndexError: the file has no such row.
        SchnRayError: not a Parquet file, no such column, or the row has no image.
    """
    with _opened(path) as file:
        check_image(path, file.schema_arrow, column)
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                image = _row_group(path, group, column)[row - first].as_py()
                return image_bytes(image, path, row)
            first += rows
    raise IndexError(row)


@functools.lru_cache(maxsize=2)
def _row_group(path: str, group: int, column: str) -> pa.ChunkedArray[Any]:
    with _opened(path) as file:
        return file.read_row_group(group, columns=[column])[column]


def _open(location: str) -> pq.ParquetFile:
    if not is_uri(location):
        return pq.ParquetFile(location, memory_map=True)
    filesystem, path = filesystem_of(location)
    return pq.ParquetFile(filesystem.open_input_file(path))


@contextlib.contextmanager
def _opened(location: str) -> Iterator[pq.ParquetFile]:
    with _readable(location), _open(location) as file:
        yield file


@contextlib.contextmanager
def _readable(location: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{location} cannot be read as Parquet: {error}") from error
