"""Parquet with the images' bytes or paths in a column: one file, or a folder of them."""

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
    row_of,
    row_uri,
    wanted_columns,
)
from schn_ray.data.sources.listing import folder_of, root_of

_BATCH_ROWS = 256  # bounds memory: this many images are decompressed at a time


@dataclass(frozen=True)
class ParquetSource:
    """Rows of Parquet files; which column is what is said by the config.

    The image column holds bytes, a struct with a field ``bytes`` as Hugging Face writes it, or
    paths as lists have them (see ``listed``). The files may be at a URI. A file's stamp is that of
    the Parquet file: where it holds paths, an update does not notice that an image behind them
    changed.
    Labels are whole numbers, text, or lists of either; without that column rows are unlabelled.
    Without an id column a row is called ``file.parquet#row``.
    """

    location: str
    config: SourceConfig
    kind: str = "parquet"

    def shards(self) -> list[Shard]:
        """List row ranges, file by file.

        Raises:
            SchnRayError: no files or rows, a damaged file, a column missing or of another type.
        """
        files = table_files(self.location)
        return table_shards(self.location, files, self.config.shard_rows, self._rows_of)

    def _rows_of(self, place: str) -> int:
        with _opened(place) as file:
            check_columns(place, file.schema_arrow, self.config)
            return int(file.metadata.num_rows)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Stream the shard's rows; only the columns that are needed are read."""
        root = root_of(folder_of(self.location), self.config)
        for unit in units_of(shard):
            place = self._place(unit.file)
            with _opened(place) as file:
                for row, values in _rows(
                    file,
                    unit.start,
                    unit.rows,
                    wanted_columns(file.schema_arrow.names, self.config),
                ):
                    uri = row_uri(place, row, self.config.image_column)
                    yield row_of(values, f"{unit.file}#{row}", uri, root, self.config)

    def _place(self, name: str) -> str:
        return place_of(self.location, name)


def table_files(
    location: str, suffixes: tuple[str, ...] = (".parquet",)
) -> list[tuple[str, int, str]]:
    """List the files of tables at or below a place, sorted: name, size in bytes, stamp.

    Hidden files are passed over.

    Raises:
        SchnRayError: there is none.
    """
    if kind_at(location) == "file":
        return [(posixpath.basename(location), *size_and_stamp(location))]
    below = files_below(location) if is_uri(location) else _local_files(Path(location))
    if not (found := sorted(file for file in below if file[0].endswith(suffixes))):
        raise SchnRayError(f"{location}: no {' or '.join(suffixes)} files in there")
    return found


def table_shards(
    location: str,
    files: list[tuple[str, int, str]],
    shard_rows: int,
    rows_of: Callable[[str], int],
) -> list[Shard]:
    """Cut files of tables into row ranges; ``rows_of`` looks at a place, and counts or refuses.

    Raises:
        SchnRayError: no rows; or raised by ``rows_of``.
    """
    shards: list[Shard] = []
    for name, size, at in files:
        for start, count in cut(rows_of(place_of(location, name)), shard_rows):
            shards.append(Shard(len(shards), count, start, (name,), size, (at,)))
    if not shards:
        raise SchnRayError(f"{location}: no rows in there")
    return shards


def place_of(location: str, name: str) -> str:
    """Return where a listed file is: the location itself, or a file below it."""
    may_be_it = name == posixpath.basename(location)  # or a file of that name below it
    is_it = may_be_it and kind_at(location) == "file"
    return location if is_it else join(location, name)


def _local_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in folder.rglob("*.*"):
        below = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in below.parts):
            yield below.as_posix(), *size_and_stamp(str(path))


def parquet_image(path: str, row: int, column: str) -> bytes:
    """Return the bytes of one image.

    Raises:
        IndexError: no such row.
        SchnRayError: not a Parquet file, no such column, or a null there.
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
def _opened(place: str) -> Iterator[pq.ParquetFile]:
    try:
        if not is_uri(place):
            with pq.ParquetFile(place, memory_map=True) as file:
                yield file
            return
        filesystem, path = filesystem_of(place)
        with filesystem.open_input_file(path) as remote, pq.ParquetFile(remote) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{place} cannot be read as Parquet: {error}") from error
