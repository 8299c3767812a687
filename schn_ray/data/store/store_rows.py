"""What a store keeps of a source's rows: images decoded once, perhaps made smaller, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schn_ray.data.images import BadImage, decode, downsized
from schn_ray.data.shards.rows import BadRow, Row
from schn_ray.data.shards.units import PartUnits
from schn_ray.data.store.row_files import ROWS

_BATCH_ROWS, _BATCH_BYTES = 1024, 32 << 20  # what a worker holds in memory, whichever is less


@dataclass(frozen=True)
class ImageOptions:
    """How images are stored; see ``PrepareConfig``."""

    max_pixels: int
    largest_side: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class _StoredRow:
    """A row, the bytes to store, and their size by that of the image as it came."""

    row: Row
    image: bytes
    scale: float


def store_rows(units: PartUnits, options: ImageOptions) -> Iterator[pa.RecordBatch]:
    """Decode the rows of a part; yield those whose image is good, in batches of bounded size.

    Args:
        units: reads the rows; images that cannot be decoded go into its receipts.
        options: how images are stored.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ROWS.names}
    size = 0
    for stored in units.read(lambda row: _decoded(row, options)):
        for column, value in zip(columns.values(), _values(stored), strict=True):
            column.append(value)
        size += len(stored.image)
        if len(columns["id"]) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield pa.record_batch(columns, ROWS)
            columns, size = {name: [] for name in ROWS.names}, 0
    if columns["id"]:
        yield pa.record_batch(columns, ROWS)


def _decoded(row: Row, options: ImageOptions) -> _StoredRow | BadRow:
    try:
        if options.largest_side is None:
            decode(row.image, options.max_pixels)
            return _StoredRow(row, row.image, 1.0)
        limits = options.max_pixels, options.largest_side, options.quality
        return _StoredRow(row, *downsized(row.image, *limits))
    except BadImage as error:
        return BadRow(row.id, row.uri, "decode", error.reason)


def _values(stored: _StoredRow) -> tuple[Any, ...]:
    """Return the values of one row, in the order of ``ROWS``."""
    row, digest = stored.row, hashlib.sha256(stored.row.image).digest()
    labels = sorted(row.labels)
    return row.id, stored.image, labels, digest, row.split, row.uri, row.camera, stored.scale
