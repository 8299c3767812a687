"""The features of the training rows, and sums over them that no number of workers changes.

The rows lie in shards that their number and width alone decide. Each worker computes what is asked
for on its own shards; the results are added in the order of the shards, on every worker. So a sum
has the same bits on one worker and on twenty. Nothing but such sums, and a few rows by number, ever
leaves a worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from schn_ray.core.workers import Workers
from schn_ray.data.labels import Rows

Array = NDArray[np.float64]
Shard = NDArray[np.floating]
Sums = tuple[Any, ...]  # arrays and numbers, of one shard
OnShard = Callable[[Shard, Rows], Sums]

_SHARD_ROWS = 16_384  # kernel features of a shard, 1,000 a row, are 131 MB in float64
_SHARD_BYTES = 2**24
_PIECE = 1024  # rows that stay in the cache


class FeatureRows:
    """n rows of features in shards, of which this process has its worker's part.

    Args:
        read: row numbers [m] -> float32 [m, d]; of a memory-mapped file, say. Any worker may ask
            for any row.
        count: n.
        width: d.
        workers: the processes that share the rows.
        shard_rows: rows of a shard; the default follows from d, so that a shard is 16 MB at most.
        memory: bytes of this process for features that ``map`` retains.
        threads: shards that this process computes at a time. BLAS rounds otherwise with another
            number of its own threads, so it should have one, and these be what uses the cores.

    Example:
        >>> rows = array_rows(np.ones((5, 2), np.float32), shard_rows=2)
        >>> total, = rows.sum(lambda X, numbers: (X.sum(axis=0),))
        >>> total.tolist()
        [5.0, 5.0]
    """

    def __init__(
        self,
        read: Callable[[Rows], Shard],
        count: int,
        width: int,
        *,
        workers: Workers | None = None,
        shard_rows: int | None = None,
        memory: int = 2**30,
        threads: int = 1,
    ) -> None:
        self.count, self.width, self.memory, self.threads = count, width, memory, threads
        self.workers = workers or Workers()
        self.shard_rows = shard_rows or min(_SHARD_ROWS, max(_SHARD_BYTES // (4 * width), 1))
        self._read = read

    def reduce(self, f: OnShard, *how: np.ufunc) -> tuple[Array, ...]:
        """Combine what f returns on each shard, in the order of the shards; equal on all workers.

        Args:
            f: (features of a shard [n_s, d], its row numbers [n_s]) -> arrays.
            how: for each array in turn, such as ``np.minimum``; ``np.add`` where none is given.
        """
        total: list[Array] = []
        for own in self._of_own(f):
            for part in self._of_all(own):
                ways = [*how, *[np.add] * (len(part) - len(how))]
                total = (
                    [way(t, p) for way, t, p in zip(ways, total, part, strict=True)]
                    if total
                    else part
                )
        return tuple(total)

    def sum(self, f: OnShard) -> tuple[Array, ...]:
        """Add what f returns on each shard, in the order of the shards; equal on all workers.

        Args:
            f: (features of a shard [n_s, d], its row numbers [n_s]) -> arrays.
        """
        return self.reduce(f)

    def each(self, f: Callable[[Shard, Rows], None]) -> None:
        """Run f on each of this worker's shards, for what it does to a ``ShardState``.

        Args:
            f: (features of a shard [n_s, d], its row numbers [n_s]) -> nothing.
        """
        for _ in self._of_own(f):
            pass

    def gather(
        self, f: Callable[[Shard, Rows], NDArray[Any]], dtype: DTypeLike = np.float64
    ) -> NDArray[Any]:
        """Return what f says of each row, of all rows in order, on every worker: for few numbers.

        Args:
            f: (features of a shard [n_s, d], its row numbers [n_s]) -> [n_s, ...].
            dtype: of the result; what f returns must be exact in float64.
        """
        parts: list[NDArray[Any]] = []
        for own in self._of_own(lambda X, numbers: (f(X, numbers),)):
            parts += [part[0].astype(dtype, copy=False) for part in self._of_all(own)]
        return np.concatenate(parts)

    def take(self, numbers: Rows) -> Shard:
        """Return a few rows [m, d] by number, on every worker the same.

        Args:
            numbers: row numbers [m].
        """
        return self._read(numbers)

    def map(self, f: Callable[[Shard], Shard], width: int, retain: bool = False) -> FeatureRows:
        """Return the same rows in the same shards with other features, computed when needed.

        Args:
            f: features of any rows [m, d] -> other features of them [m, width]; row by row, so it
                may get the rows of a shard in pieces.
            width: of the other features.
            retain: compute them once, if ``memory`` is enough for this worker's.
        """
        mapped = FeatureRows(
            lambda numbers: in_pieces(f, self._read(numbers)),
            self.count,
            width,
            workers=self.workers,
            shard_rows=self.shard_rows,
            memory=self.memory,
            threads=self.threads,
        )
        own = self.count * width * 4 // self.workers.size
        if retain and own <= self.memory:
            mapped._read = _Retained(mapped._read)
            mapped.memory -= own
        return mapped

    def without_features(self) -> FeatureRows:
        """Return the same rows in the same shards, for passes over ``ShardState`` alone."""
        return self.map_numbers(lambda numbers: np.empty((len(numbers), 0), np.float32))

    def map_numbers(self, read: Callable[[Rows], Shard]) -> FeatureRows:
        """Return the same rows in the same shards, read in another way.

        Args:
            read: row numbers [m] -> features [m, any].
        """
        return FeatureRows(
            read,
            self.count,
            0,
            workers=self.workers,
            shard_rows=self.shard_rows,
            memory=0,
            threads=self.threads,
        )

    @property
    def _shards(self) -> int:
        return -(-self.count // self.shard_rows)

    @property
    def _padded_shards(self) -> int:
        """Shards, and as many that do not exist that each worker takes part in each wave."""
        waves = -(-self._shards // self.workers.size)
        return waves * self.workers.size

    def _shard(self, shard: int) -> tuple[Shard, Rows]:
        start = shard * self.shard_rows
        numbers = np.arange(start, min(start + self.shard_rows, self.count))
        return self._read(numbers), numbers

    def _of_own(self, f: Callable[[Shard, Rows], Any]) -> Iterator[Any]:
        """Yield what f returns on each of this worker's shards, in order; None without a shard."""
        own = range(self.workers.rank, self._padded_shards, self.workers.size)

        def result(shard: int) -> Any:
            return f(*self._shard(shard)) if shard < self._shards else None

        if self.threads == 1:
            yield from map(result, own)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            ahead: deque[Future[Any]] = deque()  # few, as what a shard returns may be large
            for shard in own:
                ahead.append(pool.submit(result, shard))
                if len(ahead) > self.threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _of_all(self, own: Sums | None) -> Iterator[list[Array]]:
        """Yield the arrays of each worker's shard of one wave, in the order of the shards."""
        if self.workers.size == 1:
            # in C order, as what is sent: LAPACK rounds otherwise for a transposed matrix
            yield [np.asarray(a, np.float64, order="C") for a in own or ()]
            return
        yield from _unpacked(self.workers.gather_any(torch.from_numpy(_packed(own))).numpy())


def in_pieces(f: Callable[[Shard], Shard], X: Shard) -> Shard:
    """Return f(X), computed a thousand rows at a time: what f makes on its way stays in the cache.

    Args:
        f: rows [m, d] -> [m, ...], each from its own row.
        X: [n, d].
    """
    first = f(X[:_PIECE])
    if len(X) <= _PIECE:
        return first
    whole = np.empty((len(X), *first.shape[1:]), first.dtype)
    whole[:_PIECE] = first
    for start in range(_PIECE, len(X), _PIECE):
        whole[start : start + _PIECE] = f(X[start : start + _PIECE])
    return whole


def pieces_of(X: Shard) -> Iterator[Shard]:
    """Yield the rows of a shard, a thousand at a time.

    Args:
        X: [n, d].
    """
    for start in range(0, len(X), _PIECE):
        yield X[start : start + _PIECE]


def array_rows(X: NDArray[np.floating], shard_rows: int | None = None) -> FeatureRows:
    """Return the rows of an array, in this process.

    Args:
        X: [n, d].
        shard_rows: see ``FeatureRows``.
    """

    def read(numbers: Rows) -> Shard:
        first, end = int(numbers[0]), int(numbers[-1]) + 1
        consecutive = end - first == len(numbers) and bool(np.all(np.diff(numbers) == 1))
        return X[first:end] if consecutive else X[numbers]  # a shard is not copied

    return FeatureRows(read, len(X), X.shape[1], shard_rows=shard_rows)


class ShardState:
    """An array a row that stays with the row's shard: codes B, embeddings U and V.

    Example:
        >>> B, numbers = ShardState(), np.arange(2)
        >>> B[numbers] = np.ones((2, 3))
        >>> B[numbers].shape
        (2, 3)
    """

    def __init__(self) -> None:
        self.of_shard: dict[int, NDArray[Any]] = {}

    def __getitem__(self, numbers: Rows) -> NDArray[Any]:
        return self.of_shard[int(numbers[0])]

    def __setitem__(self, numbers: Rows, values: NDArray[Any]) -> None:
        self.of_shard[int(numbers[0])] = values

    def pick(self, rows: FeatureRows, chosen: Rows, width: int) -> Array:
        """Return the arrays of a few rows [c, width], on every worker the same.

        Args:
            rows: the rows that this is a state of.
            chosen: their numbers [c], in rising order.
            width: numbers a row.
        """

        def own(_: Shard, numbers: Rows) -> tuple[Array]:
            picked = np.zeros((len(chosen), width))
            inside = (chosen >= numbers[0]) & (chosen <= numbers[-1])
            picked[inside] = self[numbers][chosen[inside] - numbers[0]]
            return (picked,)

        return rows.without_features().sum(own)[0]


class _Retained:
    """Reads each shard once. A shard is recognised by its first row and its length."""

    def __init__(self, read: Callable[[Rows], Shard]) -> None:
        self._read = read
        self._shards: dict[tuple[int, int], Shard] = {}

    def __call__(self, numbers: Rows) -> Shard:
        first, last, count = int(numbers[0]), int(numbers[-1]), len(numbers)
        if last - first + 1 != count:
            return self._read(numbers)  # rows by number, not a shard
        if (first, count) not in self._shards:
            self._shards[first, count] = self._read(numbers)
        return self._shards[first, count]


def _packed(arrays: Sums | None) -> Array:
    """Return arrays as one vector that says their shapes first; empty if there is no shard."""
    if arrays is None:
        return np.empty(0)
    header = [float(len(arrays))]
    for array in arrays:
        header += [float(np.ndim(array)), *map(float, np.shape(array))]
    return np.concatenate([header, *[np.ravel(a).astype(np.float64) for a in arrays]])


def _unpacked(vector: Array) -> Iterator[list[Array]]:
    at = 0
    while at < len(vector):
        count, at = int(vector[at]), at + 1
        shapes: list[tuple[int, ...]] = []
        for _ in range(count):
            axes = int(vector[at])
            shapes.append(tuple(int(size) for size in vector[at + 1 : at + 1 + axes]))
            at += 1 + axes
        arrays: list[Array] = []
        for shape in shapes:
            size = int(np.prod(shape))
            arrays.append(vector[at : at + size].reshape(shape))
            at += size
        yield arrays
