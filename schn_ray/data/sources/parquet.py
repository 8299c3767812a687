"""Parquet with a column of images or of their paths: one file, or a folder of them."""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import (
    files_below,
    filesystem_of,
    is_uri,
    join,
    kind_at,
    size_and_stamp,
)
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut, units_of
from schn_ray.data.sources.columns import (
    check_columns,
    check_image,
    image_bytes,
    row_columns,
    row_of,
    row_uri,
)
from schn_ray.data.sources.listing import folder_of, root_of

_BATCH_ROWS = 256  # bounds memory: this many images are decompressed at a time


@dataclass(frozen=True)
class ParquetSource:
    """Rows of Parquet files; the config names the columns.

    The image column holds bytes, a struct with a field ``bytes`` as Hugging Face writes it, or
    paths (see ``listing``). Labels are whole numbers, text, or lists of either; without a label
    column, rows are unlabelled. Without an id column, a row's id is ``file.parquet#row``.

    The files may be at a URI. A row's stamp is that of its Parquet file: if that holds paths, an
    update does not notice that an image changed.
    """

    location: str
    config: SourceConfig
    kind: str = "parquet"

    def shards(self) -> list[Shard]:
        """List row ranges, file by file.

        Raises:
            SchnRayError: no files or rows, a damaged file, or a column that is missing or has
                another type.
        """
        files = table_files(self.location)
        return table_shards(self.location, files, self.config.shard_rows, self._rows_of)

    def _rows_of(self, location: str) -> int:
        with _opened(location) as file:
            check_columns(location, file.schema_arrow, self.config)
            return int(file.metadata.num_rows)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows one by one; only the columns that a row needs are read."""
        root = root_of(folder_of(self.location), self.config)
        for unit in units_of(shard):
            location = file_location(self.location, unit.file)
            with _opened(location) as file:
                for row, values in _rows(
                    file,
                    unit.start,
                    unit.rows,
                    row_columns(file.schema_arrow.names, self.config),
                ):
                    uri = row_uri(location, row, self.config.image_column)
                    yield row_of(values, f"{unit.file}#{row}", uri, root, self.config)


def has_parquet(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has Parquet files.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.endswith(".parquet") for name in names)


def table_files(
    location: str, suffixes: tuple[str, ...] = (".parquet",)
) -> list[tuple[str, int, str]]:
    """List the tables at a location, sorted by name; hidden files are skipped.

    Args:
        location: a file or a folder, a path or a URI.
        suffixes: how the files' names end.

    Returns:
        For each file its path below the location, its size in bytes, and its stamp.

    Raises:
        SchnRayError: no such file.
    """
    if kind_at(location) == "file":
        return [(posixpath.basename(location), *size_and_stamp(location))]
    below = files_below(location) if is_uri(location) else _local_files(Path(location))
    if not (files := sorted(file for file in below if file[0].endswith(suffixes))):
        raise SchnRayError(f"{location}: no {' or '.join(suffixes)} files in there")
    return files


def table_shards(
    location: str,
    files: list[tuple[str, int, str]],
    shard_rows: int,
    rows_of: Callable[[str], int],
) -> list[Shard]:
    """Cut tables into shards of whole row ranges.

    Args:
        location: of the source.
        files: as ``table_files`` returns them.
        shard_rows: the most rows of a shard.
        rows_of: counts a file's rows; raises ``SchnRayError`` for a table that cannot be used.

    Raises:
        SchnRayError: no rows, or raised by ``rows_of``.
    """
    shards: list[Shard] = []
    for name, size, stamp in files:
        for start, count in cut(rows_of(file_location(location, name)), shard_rows):
            shards.append(Shard(len(shards), count, start, (name,), size, (stamp,)))
    if not shards:
        raise SchnRayError(f"{location}: no rows in there")
    return shards


def file_location(location: str, name: str) -> str:
    """Return the location of one of the files that ``table_files`` listed.

    Args:
        location: of the source: the file itself, or a folder above it.
        name: the file's path below that.
    """
    # a folder may have a file of its own name, so that the name alone does not decide
    is_file = name == posixpath.basename(location) and kind_at(location) == "file"
    return location if is_file else join(location, name)


def _local_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in folder.rglob("*.*"):
        below = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in below.parts):
            yield below.as_posix(), *size_and_stamp(str(path))


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


def _rows(
    file: pq.ParquetFile, start: int, count: int, columns: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream rows [start, start + count) from the row groups that hold them."""
    groups: list[int] = []
    first = row = 0
    for group in range(file.num_row_groups):
        end = row + file.metadata.row_group(group).num_rows
        if row < start + count and end > start:
            first = first if groups else row
            groups.append(group)
        row = end
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
        skip = min(max(start - first, 0), len(batch))
        keep = min(len(batch), start + count - first) - skip
        for i, values in enumerate(batch.slice(skip, max(keep, 0)).to_pylist()):
            yield first + skip + i, values
        first += len(batch)


@contextlib.contextmanager
def _opened(location: str) -> Iterator[pq.ParquetFile]:
    try:
        if not is_uri(location):
            with pq.ParquetFile(location, memory_map=True) as file:
                yield file
            return
        filesystem, path = filesystem_of(location)
        with filesystem.open_input_file(path) as remote, pq.ParquetFile(remote) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{location} cannot be read as Parquet: {error}") from error
