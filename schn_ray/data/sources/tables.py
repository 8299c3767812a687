"""Tables of rows: one file or a folder of them, with columns of images, of vectors, or of both."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import files_below, is_uri, join, kind_at, size_and_stamp
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut, units_of
from schn_ray.data.shards.vectors import VectorFormat, VectorRows, rows_of_shard, stored_type
from schn_ray.data.sources.columns import (
    check_columns,
    row_columns,
    row_of,
    row_uri,
    with_vector,
)
from schn_ray.data.sources.listing import folder_of, root_of
from schn_ray.data.sources.usual_columns import (
    class_names_of,
    hub_features,
    with_usual_columns,
)
from schn_ray.data.sources.vector_columns import (
    as_lists,
    find_vector_column,
    list_type,
    rows_of_vectors,
    vectors_in,
)

Piece = tuple[int, pa.RecordBatch]
"""The number of its first row in the file, and the rows."""

Columns = Callable[[pa.Schema], list[str]]
"""Chooses the columns to read from those that a file has."""

_IMAGES_AT_ONCE = 256  # bounds memory: this many images are decompressed at a time


@dataclass(frozen=True)
class TableLayout:
    """How the columns of all files of a source are read; decided by the first file with rows.

    Attributes:
        config: with the names of the columns as the files have them.
        vector_column: name of the column of vectors; None if there is none.
        vectors: their format.
        class_names: of labels that are numbers: name of class 0, 1, ...; empty if labels are names.
    """

    config: SourceConfig
    vector_column: str | None = None
    vectors: VectorFormat | None = None
    class_names: tuple[str, ...] = ()

    @property
    def has_images(self) -> bool:
        """Whether rows have images."""
        return self.vectors is None or self.vectors.images

    def columns(self, schema: pa.Schema) -> list[str]:
        """Return the names of the columns that are read."""
        names = row_columns(schema.names, self.config)
        return names if self.vector_column is None else [*names, self.vector_column]


@dataclass(frozen=True)
class TableSource:
    """Rows of table files; a format has its own subclass.

    The first file decides which columns are read, and in which format vectors are stored.
    """

    location: str
    config: SourceConfig
    kind: str = ""
    suffixes: ClassVar[tuple[str, ...]] = ()

    def describe(self, location: str) -> tuple[pa.Schema, int]:
        """Return the columns and the number of rows of a file."""
        raise NotImplementedError

    def pieces(
        self, location: str, start: int, count: int, columns: Columns, at_once: int
    ) -> Iterator[Piece]:
        """Yield rows [start, start + count) of a file, at most ``at_once`` of them together."""
        raise NotImplementedError

    def values(self, rows: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """Yield column -> value of each row."""
        yield from rows.to_pylist()

    def files(self) -> list[tuple[str, int, str]]:
        """List the files, as ``table_files`` does."""
        return table_files(self.location, self.suffixes)

    def split_of(self, file: str) -> str | None:
        """Return the role of a file's rows where no column has it."""
        return None

    def features(self, schema: pa.Schema) -> dict[str, Any]:
        """Return what Hugging Face says of the columns, by name; empty for other tables."""
        return hub_features(schema)

    @cached_property
    def layout(self) -> TableLayout:
        """How columns are read. Known after ``shards``, and pickled with the source."""
        for name, _, _ in self.files():
            location = file_location(self.location, name)
            schema, rows = self.describe(location)
            if rows:
                return self._layout_of(location, schema)
        return TableLayout(self.config)

    @property
    def vectors(self) -> VectorFormat | None:
        """The format of the rows' vectors; None if they have none."""
        return self.layout.vectors

    def shards(self) -> Iterator[Shard]:
        """List row ranges, file by file; a file is opened when its turn comes.

        Raises:
            SchnRayError: no files or rows, a damaged file, or a column that is missing or has
                another type.
        """
        return self._shards_after(None)

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        """List the shards that follow one of ``shards``; files before it are not opened."""
        return self._shards_after(last)

    def _shards_after(self, last: Shard | None) -> Iterator[Shard]:
        shard_rows = rows_of_shard(self.config.shard_rows, self.vectors)
        yield from table_shards(self.location, self.files(), shard_rows, self._rows_of, last)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows one by one; only the columns that a row needs are read."""
        layout = self.layout
        if not layout.has_images:
            for batch in self.read_batches(shard):
                yield from batch.rows()
            return
        root = root_of(folder_of(self.location), self.config)
        for unit in units_of(shard):
            location, split = file_location(self.location, unit.file), self.split_of(unit.file)
            for row, values, vector in self._rows(location, unit.start, unit.rows):
                uri = row_uri(location, row, layout.config.image_column)
                given = f"{unit.file}#{row}", uri, root, layout.config, layout.class_names, split
                yield with_vector(row_of(values, *given), vector)

    def read_batches(self, shard: Shard) -> Iterator[VectorRows]:
        """Read the shard's rows of vectors, many at once."""
        layout = self.layout
        assert layout.vectors is not None
        assert layout.vector_column is not None
        for unit in units_of(shard):
            location, split = file_location(self.location, unit.file), self.split_of(unit.file)
            rows_of_unit = location, unit.start, unit.rows
            at_once = layout.vectors.rows_at_once
            for first, rows in self.pieces(*rows_of_unit, layout.columns, at_once):
                yield rows_of_vectors(
                    rows,
                    layout.vectors,
                    layout.vector_column,
                    layout.config,
                    layout.class_names,
                    np.arange(first, first + len(rows)),
                    f"{unit.file}#",
                    f"{location}#",
                    split,
                )

    def _rows(
        self, location: str, start: int, count: int
    ) -> Iterator[tuple[int, dict[str, Any], Any]]:
        """Yield number, values and vector of each row; the vector is a text if it is bad."""
        layout = self.layout
        for first, rows in self.pieces(location, start, count, layout.columns, _IMAGES_AT_ONCE):
            vectors: Any = [None] * len(rows)
            if layout.vectors is not None and layout.vector_column is not None:
                X, problems = vectors_in(rows[layout.vector_column], layout.vectors)
                vectors = [problems.get(row, vector) for row, vector in enumerate(X)]
                rows = rows.drop_columns([layout.vector_column])
            for row, values in enumerate(self.values(rows)):
                yield first + row, values, vectors[row]

    def _rows_of(self, location: str) -> int:
        schema, rows = self.describe(location)
        if rows:
            self._check(location, schema)
        return rows

    def _check(self, location: str, schema: pa.Schema) -> None:
        layout = self.layout
        check_columns(location, schema, layout.config, layout.has_images)
        if layout.vectors is None:
            return
        name = layout.vector_column
        kind = list_type(schema.field(name).type) if name in schema.names else None
        if kind is None or stored_type(kind.value_type) != layout.vectors.dtype:
            got = f"holds {schema.field(name).type}" if name in schema.names else "is missing"
            raise SchnRayError(
                f"{location}: column '{name}' {got}; the first file has {layout.vectors}, and all "
                "vectors of a source have one type"
            )

    def _layout_of(self, location: str, schema: pa.Schema) -> TableLayout:
        config = with_usual_columns(schema.names, self.config)
        feature = self.features(schema).get(config.label_column)
        class_names = () if config.class_names else class_names_of(feature)
        column = find_vector_column(location, schema, config)
        if column is None:
            return TableLayout(config, class_names=class_names)
        kind = list_type(schema.field(column).type)
        assert kind is not None
        dtype = stored_type(kind.value_type)
        assert dtype is not None
        width = config.vector_width or self._width(location, column)
        images = config.image_column in schema.names
        return TableLayout(config, column, VectorFormat(width, dtype, images), class_names)

    def _width(self, location: str, column: str) -> int:
        """Return the width that most of the first rows have; of two as frequent, the first."""
        widths = Counter[int]()
        limit = self.config.shard_rows
        for _, rows in self.pieces(location, 0, limit, lambda _: [column], _IMAGES_AT_ONCE):
            widths.update(pc.list_value_length(as_lists(rows[column])).drop_null().to_pylist())
        del widths[0]
        if not widths:
            raise SchnRayError(
                f"{location}: the first {limit:,} rows have no vector in '{column}'; give the "
                "number of their dimensions with --set source.vector_width=D"
            )
        return widths.most_common(1)[0][0]


def table_files(location: str, suffixes: tuple[str, ...]) -> list[tuple[str, int, str]]:
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
    last: Shard | None = None,
) -> Iterator[Shard]:
    """Cut tables into shards of whole row ranges.

    Args:
        location: of the source.
        files: as ``table_files`` returns them.
        shard_rows: the most rows of a shard.
        rows_of: counts a file's rows; raises ``SchnRayError`` for a table that cannot be used.
        last: only the shards that follow this one.

    Raises:
        SchnRayError: no rows, or raised by ``rows_of``.
    """
    number, first_file, first_row = next_rows(last, [name for name, _, _ in files])
    for name, size, stamp in files[first_file:]:
        for start, count in cut(rows_of(file_location(location, name)), shard_rows):
            if start >= first_row:
                yield Shard(number, count, start, (name,), size, (stamp,))
                number += 1
        first_row = 0
    if not number:
        raise SchnRayError(f"{location}: no rows in there")


def next_rows(last: Shard | None, names: list[str]) -> tuple[int, int, int]:
    """Return where rows go on after a shard of one file: shard number, position of the file, row.

    Args:
        last: the shard; None: it begins with the first row of all.
        names: of all files, in the order of the listing.

    Raises:
        SchnRayError: the shard's file is not listed any more.
    """
    if last is None:
        return 0, 0, 0
    if last.files[0] not in names:
        raise SchnRayError(f"{last.files[0]} is gone since the source was listed: add --update")
    return last.number + 1, names.index(last.files[0]), last.start + last.rows


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
