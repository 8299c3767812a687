"""Vectors in rows: their format, and rows of vectors alone, many at a time as columns.

A source whose rows have vectors says so by an attribute ``vectors``, a ``VectorFormat``. It is
decided once, when the source is listed, and travels with the source, so that all workers agree. A
source of vectors without images should also have ``read_batches``: then no row is handled one by
one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from schn_ray.data.shards.rows import BadRow, Row, Shard, Source

VectorType = Literal["float32", "float16", "int8"]

NOT_FINITE = "the vector has numbers that are NaN or infinite"
ZERO = "the vector is all zeros"
NULL = "no vector: it is null"
NULL_INSIDE = "the vector has numbers that are null"

_AT_ONCE_BYTES, _AT_ONCE_ROWS = 8 << 20, 8192  # whichever is less
_SHARD_FACTOR = 16  # a vector has some 1 KB, an image 100 KB


@dataclass(frozen=True)
class VectorFormat:
    """What all vectors of a source or store have in common.

    Attributes:
        width: D, numbers of a vector.
        dtype: their type, as stored.
        images: whether each row has an image, too.
    """

    width: int
    dtype: VectorType
    images: bool = False

    @property
    def arrow_type(self) -> pa.DataType:
        """The type of the column: lists of D numbers."""
        return pa.list_(pa.from_numpy_dtype(np.dtype(self.dtype)), self.width)

    @property
    def rows_at_once(self) -> int:
        """How many vectors a worker holds in memory at once."""
        return max(1, min(_AT_ONCE_ROWS, _AT_ONCE_BYTES // (4 * self.width)))

    def __str__(self) -> str:
        return f"{self.dtype}[{self.width}]"


@dataclass(frozen=True)
class VectorRows:
    """Rows of vectors without images, as columns.

    Attributes:
        good: columns ``id``, ``labels`` (sorted, without repetition), ``split``, ``uri``,
            ``camera`` and ``vector``; see ``Row``. ``image_sha256`` is that of the image that a
            feature was computed of, null where it is not known.
        bad: position among all of these rows, good and bad -> the bad row.
    """

    good: pa.RecordBatch
    bad: Mapping[int, BadRow]

    def rows(self) -> Iterator[Row | BadRow]:
        """Yield the rows one by one, good and bad in their order."""
        X, labels = numpy_vectors(self.good["vector"]), self.good["labels"].to_pylist()
        names = ("id", "split", "uri", "camera")
        ids, splits, uris, cameras = (self.good[name].to_pylist() for name in names)
        row = 0
        for position in range(len(self.good) + len(self.bad)):
            if position in self.bad:
                yield self.bad[position]
                continue
            common = ids[row], None, tuple(labels[row]), uris[row], splits[row], cameras[row]
            yield Row(*common, X[row])
            row += 1


class BatchSource(Source, Protocol):
    """A source of vectors without images, which reads many rows at once."""

    @property
    def vectors(self) -> VectorFormat | None:
        """Their format."""
        ...

    def read_batches(self, shard: Shard) -> Iterator[VectorRows]:
        """Read the shard's rows in order.

        Args:
            shard: one of ``shards``, or made of their units.
        """
        ...


def vectors_of(source: Source) -> VectorFormat | None:
    """Return the format of a source's vectors; None if its rows have none.

    Args:
        source: of any kind; a source without the attribute ``vectors`` has none.
    """
    return cast("VectorFormat | None", getattr(source, "vectors", None))


def batch_source(source: Source) -> BatchSource | None:
    """Return the source if it has vectors alone and reads them in batches; else None.

    Args:
        source: of any kind.
    """
    vectors = vectors_of(source)
    batched = vectors is not None and not vectors.images and hasattr(source, "read_batches")
    return cast(BatchSource, source) if batched else None


def rows_of_shard(shard_rows: int, vectors: VectorFormat | None) -> int:
    """Return how many rows a shard has: more where rows are vectors alone, which are small.

    Args:
        shard_rows: of images, see ``SourceConfig``.
        vectors: the source's format.

    Example:
        >>> rows_of_shard(2048, None), rows_of_shard(2048, VectorFormat(512, "float16"))
        (2048, 32768)
    """
    return shard_rows * (_SHARD_FACTOR if vectors is not None and not vectors.images else 1)


def vector_rows(
    columns: Mapping[str, pa.Array], problems: Mapping[int, str], vectors: VectorFormat
) -> VectorRows:
    """Put rows together, and set those with a problem apart.

    Args:
        columns: [n] each, as in ``VectorRows.good``; null splits, cameras, digests may be absent.
        problems: position -> what is wrong with the row.
        vectors: their format.
    """
    n = len(columns["id"])
    schema = vector_schema(vectors)
    absent = {
        "split": lambda: pa.nulls(n, pa.string()),
        "camera": lambda: pa.repeat(-1, n),
        "image_sha256": lambda: pa.nulls(n, pa.binary(32)),
    }
    arrays = [
        (columns[name] if name in columns else absent[name]()).cast(schema.field(name).type)
        for name in schema.names
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if not problems:
        return VectorRows(batch, {})
    good = np.ones(n, bool)
    good[list(problems)] = False
    bad = {
        position: BadRow(
            str(columns["id"][position]), str(columns["uri"][position]), "read", reason
        )
        for position, reason in sorted(problems.items())
    }
    return VectorRows(batch.filter(pa.array(good)), bad)


def vector_schema(vectors: VectorFormat) -> pa.Schema:
    """Return the columns of ``VectorRows.good``.

    Args:
        vectors: their format.
    """
    return pa.schema(
        {
            "id": pa.string(),
            "labels": pa.list_(pa.string()),
            "split": pa.string(),
            "uri": pa.string(),
            "camera": pa.int32(),
            "vector": vectors.arrow_type,
            "image_sha256": pa.binary(32),
        }
    )


def arrow_vectors(X: NDArray[Any]) -> pa.Array:
    """Return vectors [n, D] as a column, without a copy if their numbers follow one another.

    Args:
        X: of a type that ``VectorFormat`` has.
    """
    return pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), X.shape[1])


def numpy_vectors(column: pa.Array) -> NDArray[Any]:
    """Return a column of vectors as an array [n, D] of the column's type, without a copy.

    Args:
        column: lists of a fixed size, none of them null; perhaps a slice, perhaps mapped.
    """
    values, width = column.flatten(), column.type.list_size
    data = np.frombuffer(values.buffers()[1] or b"", numpy_type(column.type.value_type))
    return data[values.offset : values.offset + len(values)].reshape(-1, width)


class VectorColumn:
    """A column of vectors, perhaps mapped, read by row numbers.

    Args:
        column: lists of a fixed size, none of them null.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.width: int = column.type.list_size
        self._chunks = [numpy_vectors(chunk) for chunk in chunks]
        self._starts = np.cumsum([0, *map(len, chunks)])[:-1]

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of rows [m] -> [m, D]; only they are read from the disk."""
        vectors = np.empty((len(rows), self.width), np.float32)
        chunk_of = np.searchsorted(self._starts, rows, "right") - 1
        order = np.argsort(chunk_of, kind="stable")
        chunks, begins = np.unique(chunk_of[order], return_index=True)
        for chunk, which in zip(chunks, np.split(order, begins[1:]), strict=False):
            vectors[which] = self._chunks[chunk][rows[which] - self._starts[chunk]]
        return vectors


def numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    """Return the numpy type of an Arrow type of numbers.

    Args:
        kind: such as ``pa.float16()``.
    """
    return np.dtype(kind.to_pandas_dtype())


def stored_type(kind: pa.DataType) -> VectorType | None:
    """Return the type in which numbers are stored; None if vectors cannot have them.

    Args:
        kind: the type of one number.

    Example:
        >>> stored_type(pa.float64()), stored_type(pa.float16()), stored_type(pa.int64())
        ('float32', 'float16', None)
    """
    if pt.is_float16(kind):
        return "float16"
    if pt.is_int8(kind):
        return "int8"
    return "float32" if pt.is_float32(kind) or pt.is_float64(kind) else None


def problems_of(X: NDArray[Any]) -> dict[int, str]:
    """Return which vectors cannot be used: row -> why.

    Args:
        X: [n, D] vectors, as stored.
    """
    if X.dtype.kind != "f":
        return {int(row): ZERO for row in np.flatnonzero(~X.any(axis=1))}
    # without their sign bit, bits order as numbers do, and infinity and NaN come last: one pass
    unsigned = np.dtype(f"u{X.itemsize}")
    no_sign = np.array(-1, f"i{X.itemsize}").view(unsigned) >> 1
    largest = (X.view(unsigned) & no_sign).max(axis=1)
    infinity = np.array(np.inf, X.dtype).view(unsigned)
    problems = {int(row): ZERO for row in np.flatnonzero(largest == 0)}
    return problems | {int(row): NOT_FINITE for row in np.flatnonzero(largest >= infinity)}


def vector_problem(vector: Any, vectors: VectorFormat) -> str:
    """Return what is wrong with one vector; empty if nothing is.

    Args:
        vector: of a ``Row``.
        vectors: the format that it should have.
    """
    if vector is None:
        return NULL
    if np.shape(vector) != (vectors.width,) or vector.dtype != vectors.dtype:
        got = f"{vector.dtype}{list(np.shape(vector))}"
        return f"the vector is {got}, expected {vectors}"
    return problems_of(vector[None]).get(0, "")


def width_problem(width: int, expected: int) -> str:
    """Return the reason of a row whose vector has another width.

    Args:
        width: of the vector.
        expected: by the other rows.
    """
    return f"the vector has {width:,} numbers, expected {expected:,}"


def vector_sha256(X: NDArray[Any]) -> pa.Array:
    """Return the SHA-256 of the bytes of each vector [n, D], as a column.

    Args:
        X: as stored.
    """
    rows = np.ascontiguousarray(X).view(np.uint8).reshape(-1).data
    size = X.shape[1] * X.itemsize
    digests = b"".join(
        [hashlib.sha256(rows[start : start + size]).digest() for start in range(0, len(rows), size)]
    )
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(X), [None, pa.py_buffer(digests)]
    )


def rebatched(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of one size; the last one may be smaller.

    Args:
        batches: of one schema.
        rows: of a batch.
    """
    waiting, count = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        while count >= rows:
            joined = waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
            yield joined.slice(0, rows)
            waiting, count = [joined.slice(rows)], count - rows
    if count:
        yield pa.concat_batches(waiting)
