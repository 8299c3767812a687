"""A part while it is written: rows that it has already, then rows that are read from the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.part_files import PartFiles, take_rows
from schn_ray.data.shards.pending import ShardTask
from schn_ray.data.shards.receipts import UnitReceipt
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, Unit, shard_of, units_of
from schn_ray.data.shards.vectors import (
    VectorFormat,
    arrow_vectors,
    batch_source,
    vector_problem,
    vector_schema,
)

T = TypeVar("T")

_PLAIN_COLUMNS = ("id", "split", "uri", "camera")


class PartUnits:
    """The units of one part: reads their rows, and records what became of each unit.

    Args:
        shard: what to read; a ``ShardTask`` may have units that stay as they are.
        source: where to read it.
        parts: where the part is written; an older one of this number may be there.
        command: named in errors, such as ``encode``.

    Attributes:
        shard: see above.
        receipts: a receipt per unit, in the order of the rows; it grows while rows are read.
    """

    def __init__(self, shard: Shard, source: Source, parts: PartFiles, command: str) -> None:
        self.shard = shard
        self.receipts: list[UnitReceipt] = []
        self._source, self._parts, self._command = source, parts, command

    @cached_property
    def existing(self) -> pa.Table | None:
        """The rows of the part that is replaced, or None."""
        number = self.shard.number
        return self._parts.read(number) if self._parts.exists(number) else None

    def unchanged(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of units that stay as they are, in the order that they have now."""
        unchanged = Counter(self.shard.unchanged if isinstance(self.shard, ShardTask) else ())
        if not unchanged or self.existing is None:
            return
        rows, start = [np.zeros(0, np.int64)], 0
        for done in self._parts.read_receipt(self.shard.number).units:
            if unchanged[done.unit]:
                unchanged[done.unit] -= 1
                rows.append(np.arange(start, start + done.written))
                self.receipts.append(done)
            start += done.written
        yield from take_rows(self.existing, np.concatenate(rows))

    def read(self, convert: Callable[[Row], T | BadRow]) -> Iterator[T]:
        """Read the rows from the source, one after the other.

        Args:
            convert: makes of a row what is to be written, or says why that is not possible.

        Yields:
            The results of ``convert`` that are not a ``BadRow``.

        Raises:
            SchnRayError: the source has more rows than were listed, or fewer.
        """
        if not self.shard.rows:
            return
        rows, units = self._source.read(self.shard), units_of(self.shard)
        for unit in units:
            bad = list[BadRow]()
            for _ in range(unit.rows):
                row = next(rows, None)
                if row is None:
                    raise self._changed_meanwhile(unit)
                result = row if isinstance(row, BadRow) else convert(row)
                if isinstance(result, BadRow):
                    bad.append(result)
                else:
                    yield result
            self.receipts.append(UnitReceipt(unit, unit.rows - len(bad), tuple(bad)))
        if next(rows, None) is not None:
            raise self._changed_meanwhile(units[-1])

    @property
    def batched(self) -> bool:
        """Whether the rows are vectors alone, which ``read_batches`` reads."""
        return batch_source(self._source) is not None

    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """Read rows of vectors from the source, many at once.

        Yields:
            The good rows, with the columns of ``VectorRows.good``.

        Raises:
            SchnRayError: the source has more rows than were listed, or fewer.
        """
        source = batch_source(self._source)
        assert source is not None
        for unit in units_of(self.shard) if self.shard.rows else ():
            bad, written = list[BadRow](), 0
            for batch in source.read_batches(shard_of(self.shard.number, [unit])):
                bad += batch.bad.values()
                written += len(batch.good)
                yield batch.good
            if written + len(bad) != unit.rows:
                raise self._changed_meanwhile(unit)
            self.receipts.append(UnitReceipt(unit, written, tuple(bad)))

    def read_vectors(self, vectors: VectorFormat) -> Iterator[pa.RecordBatch]:
        """Read the vectors of any source that has them; images beside them are left out.

        Args:
            vectors: their format.

        Yields:
            The good rows, with the columns of ``VectorRows.good``.
        """
        if self.batched:
            yield from self.read_batches()
            return

        def checked(row: Row) -> Row | BadRow:
            problem = vector_problem(row.vector, vectors)
            return BadRow(row.id, row.uri, "read", problem) if problem else row

        rows = self.read(checked)
        while chunk := list(islice(rows, vectors.rows_at_once)):
            X = np.stack([np.asarray(row.vector) for row in chunk])
            columns = {name: [getattr(row, name) for row in chunk] for name in _PLAIN_COLUMNS}
            labels = [sorted(row.labels) for row in chunk]
            columns |= {"labels": labels, "vector": arrow_vectors(X)}
            columns["image_sha256"] = pa.nulls(len(chunk), pa.binary(32))
            yield pa.record_batch(columns, vector_schema(vectors))

    def _changed_meanwhile(self, unit: Unit) -> SchnRayError:
        return SchnRayError(
            f"{unit.file or 'the source'}: {unit.rows:,} rows from row {unit.start:,} on were "
            "listed, and it has other rows now: it changed meanwhile. To take in the change, run "
            f"{self._command} --update"
        )
