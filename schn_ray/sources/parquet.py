"""Parquet with the images' bytes or paths in a column: one file, or a folder of them."""

from __future__ import annotations

import contextlib
import functools
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from schn_ray.config import SourceConfig
from schn_ray.errors import SchnRayError, nearest
from schn_ray.sources.listed import fetch_listed, root_of
from schn_ray.sources.places import (
    Root,
    files_below,
    is_there,
    is_uri,
    join,
    opened,
    size_and_stamp,
)
from schn_ray.sources.rows import BadRow, Row, Shard, cut, units_of

_BATCH_ROWS = 256  # bounds memory: this many images are decompressed at a time


@dataclass(frozen=True)
class Parquet:
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
        shards: list[Shard] = []
        for name, size, at in parquet_files(self.location):
            place = self._place(name)
            with _opened(place) as file:
                _check_columns(place, file.schema_arrow, self.config)
                rows = file.metadata.num_rows
            for start, count in cut(rows, self.config.shard_rows):
                shards.append(Shard(len(shards), count, start, (name,), size, (at,)))
        if not shards:
            raise SchnRayError(f"{self.location}: no rows in there")
        return shards

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Stream the shard's rows; only the columns that are needed are read."""
        for unit in units_of(shard):
            place = self._place(unit.file)
            with _opened(place) as file:
                for row, values in _rows(file, unit.start, unit.rows, self._columns(file)):
                    yield self._row(unit.file, place, row, values)

    def _columns(self, file: pq.ParquetFile) -> list[str]:
        c = self.config
        wanted = (c.id_column, c.image_column, c.label_column, c.split_column)
        return [name for name in wanted if name in file.schema_arrow.names]

    def _row(self, name: str, place: str, row: int, values: dict[str, Any]) -> Row | BadRow:
        config, default_id = self.config, f"{name}#{row}"
        uri = row_uri(place, row, config.image_column)
        row_id = values.get(config.id_column, default_id)
        if row_id is None:
            return BadRow(default_id, uri, "read", f"no id: column '{config.id_column}' is null")
        row_id = str(row_id)
        image = values[config.image_column]
        if isinstance(image, dict):
            image = image["bytes"]
        if image is None:
            return BadRow(row_id, uri, "read", f"no image: '{config.image_column}' is null")
        if isinstance(image, str):
            fetched = fetch_listed(self._root(), image, row_id)
            if isinstance(fetched, BadRow):
                return fetched
            uri, image = fetched
        labels = values.get(config.label_column)
        several = labels if isinstance(labels, list) else [] if labels is None else [labels]
        if any(label is None or label == "" for label in several):
            return BadRow(row_id, uri, "read", f"an empty label in '{config.label_column}'")
        split = values.get(config.split_column)
        names = tuple(dict.fromkeys(map(str, several)))
        return Row(row_id, image, names, uri, None if split is None else str(split))

    def _place(self, name: str) -> str:
        may_be_it = name == posixpath.basename(self.location)  # or a file of that name below it
        is_it = may_be_it and is_there(self.location) == "file"
        return self.location if is_it else join(self.location, name)

    def _root(self) -> Root:
        return root_of(self.location, self.config)


def parquet_files(location: str) -> list[tuple[str, int, str]]:
    """List the Parquet files at or below a place, sorted: name, size in bytes, stamp.

    Hidden files are passed over.

    Raises:
        SchnRayError: there is none.
    """
    if is_there(location) == "file":
        return [(posixpath.basename(location), *size_and_stamp(location))]
    below = files_below(location) if is_uri(location) else _local_files(Path(location))
    if not (found := sorted(file for file in below if file[0].endswith(".parquet"))):
        raise SchnRayError(f"{location}: no .parquet files in there")
    return found


def _local_files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in folder.rglob("*.parquet"):
        below = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in below.parts):
            yield below.as_posix(), *size_and_stamp(str(path))


def row_uri(path: str, row: int, column: str) -> str:
    """Name one image: ``path#row``, and ``:column`` where that is not called ``image``."""
    return f"{path}#{row}" + ("" if column == "image" else f":{column}")


def parquet_image(path: str, row: int, column: str) -> bytes:
    """Return the bytes of one image.

    Raises:
        IndexError: no such row.
        SchnRayError: not a Parquet file, no such column, or a null there.
    """
    with _opened(path) as file:
        _check_image(path, file.schema_arrow, column)
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                image = _row_group(path, group, column)[row - first].as_py()
                image = image["bytes"] if isinstance(image, dict) else image
                if image is None:
                    raise SchnRayError(f"{path}: row {row} has no image")
                return bytes(image)
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
        filesystem, path = opened(place)
        with filesystem.open_input_file(path) as remote, pq.ParquetFile(remote) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{place} cannot be read as Parquet: {error}") from error


def _check_columns(path: str, schema: pa.Schema, config: SourceConfig) -> None:
    _check_image(path, schema, config.image_column)
    wanted = {
        config.id_column: ("text or whole numbers", _is_name),
        config.label_column: ("whole numbers, text, or lists of either", _is_label),
        config.split_column: ("text", _is_text),
    }
    for column, (what, is_right) in wanted.items():
        if column in schema.names and not is_right(schema.field(column).type):
            raise SchnRayError(
                f"{path}: column '{column}' holds {schema.field(column).type}; wanted {what}"
            )


def _check_image(path: str, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise SchnRayError(
            f"{path}: no column '{column}'{nearest(column, schema.names)} There are: "
            f"{', '.join(schema.names)}; say which holds the images with "
            "--set source.image_column=NAME"
        )
    found = schema.field(column).type
    if pt.is_struct(found) and found.get_field_index("bytes") >= 0:
        found = found.field("bytes").type
    if not (pt.is_binary(found) or pt.is_large_binary(found) or _is_text(found)):
        raise SchnRayError(
            f"{path}: column '{column}' holds {found}; wanted the encoded images as binary, or "
            "their paths as text"
        )


def _is_text(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_null(kind)


def _is_name(kind: pa.DataType) -> bool:
    return _is_text(kind) or pt.is_integer(kind)


def _is_label(kind: pa.DataType) -> bool:
    if isinstance(kind, (pa.ListType, pa.LargeListType)):
        kind = kind.value_type
    return _is_name(kind)
