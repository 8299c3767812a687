"""What a store keeps of a source's rows, in batches: images decoded once, perhaps made smaller."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, decode, downsized
from schn_ray.data.shards.rows import BadRow, Row
from schn_ray.data.shards.units import PartUnits
from schn_ray.data.shards.vectors import (
    VectorFormat,
    arrow_vectors,
    numpy_vectors,
    rebatched,
    vector_problem,
    vector_sha256,
)
from schn_ray.data.store.row_files import VECTOR, row_schema

_BATCH_ROWS, _BATCH_BYTES = 1024, 32 << 20  # what a worker holds in memory, whichever is less


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored; see ``PrepareConfig``."""

    max_pixels: int
    largest_side: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class _StoredRow:
    """A row, the bytes to store, and their size by that of the image as it came.

    A row without an image has neither.
    """

    row: Row
    image: bytes | None
    scale: float | None


def store_rows(
    units: PartUnits, options: ImageOptions, vectors: VectorFormat | None = None
) -> Iterator[pa.RecordBatch]:
    """Check the rows of a part; yield those that are good, in batches of bounded size.

    Args:
        units: reads the rows; those that cannot be used go into its receipts.
        options: how images are stored.
        vectors: the format of the rows' vectors.
    """
    if units.batched and vectors is not None:
        # a part's bytes must not depend on how its rows came: another run may cut them otherwise
        for batch in rebatched(units.read_batches(), vectors.rows_at_once):
            yield _with_all_columns(batch, vectors)
        return
    schema = row_schema(vectors)
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    size = 0
    for stored in units.read(lambda row: _checked(row, options, vectors)):
        for column, value in zip(columns.values(), _values(stored, vectors), strict=True):
            column.append(value)
        size += len(stored.image or b"")
        if len(columns["id"]) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield _batch(columns, schema)
            columns, size = {name: [] for name in schema.names}, 0
    if columns["id"]:
        yield _batch(columns, schema)


def _batch(columns: dict[str, list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    vectors = {VECTOR: arrow_vectors(np.stack(columns[VECTOR]))} if VECTOR in columns else {}
    return pa.record_batch(columns | vectors, schema)


def _with_all_columns(batch: pa.RecordBatch, vectors: VectorFormat) -> pa.RecordBatch:
    schema, n = row_schema(vectors), len(batch)
    digests = {"sha256": vector_sha256(numpy_vectors(batch[VECTOR]))}
    columns = {name: batch[name] for name in batch.schema.names} | digests
    return pa.record_batch(
        [
            columns[field.name] if field.name in columns else pa.nulls(n, field.type)
            for field in schema
        ],
        schema,
    )


def _checked(row: Row, options: ImageOptions, vectors: VectorFormat | None) -> _StoredRow | BadRow:
    if vectors is not None:
        if problem := vector_problem(row.vector, vectors):
            return BadRow(row.id, row.uri, "read", problem)
    elif row.vector is not None:
        raise SchnRayError(
            f"row {row.id} has a vector, but its source has no attribute 'vectors' with their "
            "format (schn_ray.data.shards.vectors.VectorFormat)"
        )
    if row.image is None and vectors is not None and not vectors.images:
        return _StoredRow(row, None, None)
    return _decoded(row, row.image, options)


def _decoded(row: Row, image: bytes | None, options: ImageOptions) -> _StoredRow | BadRow:
    if image is None:
        return BadRow(row.id, row.uri, "read", "no image")
    try:
        if options.largest_side is None:
            decode(image, options.max_pixels)
            return _StoredRow(row, image, 1.0)
        limits = options.max_pixels, options.largest_side, options.quality
        return _StoredRow(row, *downsized(image, *limits))
    except BadImage as error:
        return BadRow(row.id, row.uri, "decode", error.reason)


def _values(stored: _StoredRow, vectors: VectorFormat | None) -> tuple[Any, ...]:
    """Return the values of one row, in the order of ``row_schema``."""
    row, labels = stored.row, sorted(stored.row.labels)
    content = row.image if row.image is not None else np.asarray(row.vector).tobytes()
    digest = hashlib.sha256(content).digest()
    values = row.id, stored.image, labels, digest, row.split, row.uri, row.camera, stored.scale
    return values if vectors is None else (*values, row.vector)
