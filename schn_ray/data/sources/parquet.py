"""Parquet with a column of images, of their paths, or of vectors: one file, or a folder of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of, is_uri
from schn_ray.data.sources.columns import check_image, image_bytes
from schn_ray.data.sources.tables import Columns, Piece, TableSource


@dataclass(frozen=True)
class ParquetSource(TableSource):
    """Rows of Parquet files; the config names the columns.

    The image column holds bytes, a struct with a field ``bytes`` as Hugging Face writes it, or
    paths (see ``listing``). Vectors are lists of numbers. Labels are whole numbers, text, or lists
    of either; without a label column, rows are unlabelled. Without an id column, a row's id is
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
        with _opened(location) as file:
            groups: list[int] = []
            first = row = 0
            for group in range(file.num_row_groups):
                end = row + file.metadata.row_group(group).num_rows
                if row < start + count and end > start:
                    first = first if groups else row
                    groups.append(group)
                row = end
            names = columns(file.schema_arrow)
            for batch in file.iter_batches(at_once, row_groups=groups, columns=names):
                skip = min(max(start - first, 0), len(batch))
                rows = min(len(batch), start + count - first) - skip
                if rows > 0:
                    yield first + skip, batch.slice(skip, rows)
                first += len(batch)


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
