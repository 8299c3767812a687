"""A shard of a source into a file of rows: decoded, perhaps made smaller, written as it comes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, decode, downsized
from schn_ray.data.shards.pending import ShardTask
from schn_ray.data.shards.receipts import UnitReceipt
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, Unit, units_of
from schn_ray.data.store.row_files import ROWS, read_rows, receipt_for, write_rows

_BATCH_ROWS, _BATCH_BYTES = 1024, 32 << 20  # what a worker holds in memory, whichever is less


@dataclass(frozen=True)
class ImageOptions:
    """How images are kept; see ``PrepareConfig``."""

    max_pixels: int
    largest_side: int | None = None
    quality: int = 90


def store_shard(shard: Shard, source: Source, keeping: ImageOptions, store: str) -> int:
    """Decode and write one shard's rows; what does not decode goes into the receipt.

    Returns:
        The number of the file.

    Raises:
        SchnRayError: the shard has other rows than were listed, or cannot be written.
    """
    work = _Work(shard, source, keeping, store)
    write_rows(store, shard.number, work.batches(), work.done)
    return shard.number


class _Work:
    """A shard's rows on their way; ``done`` is complete when all batches were taken."""

    def __init__(self, shard: Shard, source: Source, keeping: ImageOptions, store: str) -> None:
        self._shard, self._source, self._keeping, self._store = shard, source, keeping, store
        self.done: list[UnitReceipt] = []

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows."""
        yield from self._kept()
        if self._shard.rows:
            yield from _batched(self._good())

    def _good(self) -> Iterator[tuple[Row, bytes, float]]:
        """Yield good rows with the bytes to keep, and write down what became of each unit."""
        read = self._source.read(self._shard)
        units = units_of(self._shard)
        for unit in units:
            bad = list[BadRow]()
            for _ in range(unit.rows):
                row = next(read, None)
                if row is None:
                    raise _changed_meanwhile(unit)
                found = self._looked_at(row)
                if isinstance(found, BadRow):
                    bad.append(found)
                else:
                    yield found
            self.done.append(UnitReceipt(unit, unit.rows - len(bad), tuple(bad)))
        if next(read, None) is not None:
            raise _changed_meanwhile(units[-1])

    def _looked_at(self, row: Row | BadRow) -> tuple[Row, bytes, float] | BadRow:
        if isinstance(row, BadRow):
            return row
        keeping = self._keeping
        try:
            if keeping.largest_side is None:
                decode(row.image, keeping.max_pixels)
                return row, row.image, 1.0
            side, quality = keeping.largest_side, keeping.quality
            return row, *downsized(row.image, keeping.max_pixels, side, quality)
        except BadImage as error:
            return BadRow(row.id, row.uri, "decode", error.reason)

    def _kept(self) -> Iterator[pa.RecordBatch]:
        """Yield what stays of the rows that are there."""
        staying = (
            Counter(self._shard.kept) if isinstance(self._shard, ShardTask) else Counter[Unit]()
        )
        if not staying:
            return
        rows, start = [], 0
        for before in receipt_for(self._store, self._shard.number).done:
            if staying[before.unit]:
                staying[before.unit] -= 1
                rows.append(np.arange(start, start + before.coded))
                self.done.append(before)
            start += before.coded
        yield from take_rows(read_rows(self._store, self._shard.number), np.concatenate(rows))


def take_rows(table: pa.Table, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Yield these rows of a table, in batches of a bounded size."""
    for start in range(0, len(rows), _BATCH_ROWS):
        part = table.take(pa.array(rows[start : start + _BATCH_ROWS])).combine_chunks()
        yield from part.to_batches()


def _batched(rows: Iterator[tuple[Row, bytes, float]]) -> Iterator[pa.RecordBatch]:
    columns: dict[str, list[Any]] = {name: [] for name in ROWS.names}
    size = 0
    for row, image, scale in rows:
        digest = hashlib.sha256(row.image).digest()
        labels = sorted(row.labels)
        values = (row.id, image, labels, digest, row.split, row.uri, row.camera, scale)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        size += len(image)
        if len(columns["id"]) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield pa.record_batch(columns, ROWS)
            columns, size = {name: [] for name in ROWS.names}, 0
    if columns["id"]:
        yield pa.record_batch(columns, ROWS)


def _changed_meanwhile(unit: Unit) -> SchnRayError:
    return SchnRayError(
        f"{unit.file or 'the source'}: {unit.rows:,} rows from row {unit.start:,} on were listed, "
        "and it holds others now: the source changed meanwhile. Run prepare --update to take that "
        "in"
    )
