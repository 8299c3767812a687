"""Arrow files with images' bytes or paths in a column, as Hugging Face's datasets saves them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of, is_uri
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Shard, units_of
from schn_ray.data.sources.columns import (
    check_columns,
    image_bytes,
    row_of,
    row_uri,
    wanted_columns,
)
from schn_ray.data.sources.listing import folder_of, root_of
from schn_ray.data.sources.parquet import place_of, table_files, table_shards

SUFFIXES = (".arrow", ".feather")
_FILE_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class ArrowSource:
    """Rows of Arrow files, of the file or of the stream format; columns as in Parquet.

    Local files are mapped, so that rows in the middle cost no more than those at the start.
    """

    location: str
    config: SourceConfig
    kind: str = "arrow"

    def shards(self) -> list[Shard]:
        """List row ranges, file by file.

        Raises:
            SchnRayError: no files or rows, a damaged file, a column missing or of another type.
        """
        files = table_files(self.location, SUFFIXES)
        return table_shards(self.location, files, self.config.shard_rows, self._rows_of)

    def _rows_of(self, place: str) -> int:
        with _batches(place) as (schema, batches):
            check_columns(place, schema, self.config)
            return sum(batch.num_rows for batch in batches)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Stream the shard's rows; only the columns that are needed are looked at."""
        root = root_of(folder_of(self.location), self.config)
        for unit in units_of(shard):
            place = place_of(self.location, unit.file)
            for row, values in _rows(place, unit.start, unit.rows, self.config):
                uri = row_uri(place, row, self.config.image_column)
                yield row_of(values, f"{unit.file}#{row}", uri, root, self.config)


def has_arrow(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has Arrow files."""
    return any(name.endswith(SUFFIXES) for name in names)


def arrow_image(place: str, row: int, column: str) -> bytes:
    """Return the bytes of one image.

    Raises:
        IndexError: no such row.
        SchnRayError: not an Arrow file, no such column, or a null there.
    """
    config = SourceConfig(image_column=column)
    for _, values in _rows(place, row, 1, config):
        return image_bytes(values[column], place, row)
    raise IndexError(row)


def _rows(
    place: str, start: int, count: int, config: SourceConfig
) -> Iterator[tuple[int, dict[str, Any]]]:
    first = 0
    with _batches(place) as (schema, batches):
        check_columns(place, schema, config)
        columns = wanted_columns(schema.names, config)
        for batch in batches:
            skip = max(start - first, 0)
            part = batch.select(columns).slice(skip, max(start + count - first - skip, 0))
            for i in range(part.num_rows):  # one at a time, as all at once may not fit
                yield first + skip + i, part.slice(i, 1).to_pylist()[0]
            first += batch.num_rows
            if first >= start + count:
                return


@contextlib.contextmanager
def _batches(place: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    try:
        with _opened(place) as file:
            is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            file.seek(0)
            if is_file:
                reader = pa.ipc.open_file(file)
                numbers = range(reader.num_record_batches)
                yield reader.schema, (reader.get_batch(number) for number in numbers)
            else:
                stream = pa.ipc.open_stream(file)
                yield stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{place} cannot be read as Arrow: {error}") from error


def _opened(place: str) -> Any:
    if not is_uri(place):
        return pa.memory_map(place)
    filesystem, path = filesystem_of(place)
    return filesystem.open_input_file(path)
