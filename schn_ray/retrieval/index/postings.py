"""Which rows have a code: lists of rows, ascending, and their expansion into ranked rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.index.checked_files import Checked
from schn_ray.retrieval.index.scan import Pairs, words

_ROW_BITS, _DISTANCE_BITS = 32, 17  # of a sort key; queries take what is left of 64
QUERIES_AT_MOST = 1 << (63 - _ROW_BITS - _DISTANCE_BITS)


class Ranked(NamedTuple):
    """Rows of q queries, query by query, by distance, then by row number.

    Attributes:
        starts: int64 [q + 1], where each query's rows begin.
        rows: int64 [m].
        distances: int32 [m].
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.int32]


class Levels(NamedTuple):
    """What was found for q queries, by distance.

    Attributes:
        last: int32 [q], the distance of the last row that is wanted, or of the farthest one found.
        tied: int64 [q], rows at that distance.
        found: int64 [q], all rows.
    """

    last: NDArray[np.int32]
    tied: NDArray[np.int64]
    found: NDArray[np.int64]


class Postings:
    """The lists of rows of u distinct codes.

    Args:
        files: mapped ``starts`` and ``rows``.
    """

    def __init__(self, files: Mapping[str, Checked]) -> None:
        self._starts_file, self._rows_file = files["starts"], files["rows"]
        self._starts = self._starts_file.array(np.int64)
        self._rows = self._rows_file.array(np.uint32)

    def counts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows have each of these codes; -1 is no code, of no rows."""
        self._starts_file.touch(8 * numbers.ravel(), 8 * numbers.ravel() + 16)
        counts: NDArray[np.int64] = self._starts[numbers + 1] - self._starts[numbers]
        return np.where(numbers < 0, 0, counts)

    def all_counts(self) -> NDArray[np.int64]:
        """Return how many rows each code has: int64 [u]."""
        self._starts_file.touch_all()
        return np.diff(self._starts)

    def levels(self, pairs: Pairs, queries: int, most: int) -> Levels:
        """Find the distance of each query's ``most``-th row among these codes, and count rows."""
        farthest = int(pairs.distances.max(initial=0))
        cells = pairs.queries * (farthest + 1) + pairs.distances
        weights = self.counts(pairs.numbers)
        rows = np.bincount(cells, weights, queries * (farthest + 1)).astype(np.int64)
        rows = rows.reshape(queries, farthest + 1)
        covered = np.cumsum(rows, axis=1)
        enough = covered[:, -1] >= most
        last = np.where(enough, np.argmax(covered >= most, axis=1), farthest)
        return Levels(last.astype(np.int32), rows[np.arange(queries), last], covered[:, -1])

    def rank(self, pairs: Pairs, queries: int, most: int | None) -> Ranked:
        """Turn codes into rows.

        Args:
            pairs: no code that is farther than a query's ``most``-th row; at most
                QUERIES_AT_MOST queries.
            queries: how many.
            most: rows of each query, None for all.
        """
        counts = self.counts(pairs.numbers)
        # a list ascends: what follows its first ``most`` rows is never wanted
        taken = counts if most is None else np.minimum(counts, most)
        rows = self._expanded(self._starts[pairs.numbers], taken)
        keys = pairs.queries << np.int64(_DISTANCE_BITS) | pairs.distances
        keys = np.repeat(keys, taken) << np.int64(_ROW_BITS) | rows
        keys.sort()
        query = keys >> (_ROW_BITS + _DISTANCE_BITS)
        starts = np.searchsorted(query, np.arange(queries + 1))
        if most is not None:
            keys = keys[np.arange(len(keys)) - starts[query] < most]
            starts = np.append(0, np.cumsum(np.minimum(np.diff(starts), most)))
        distances = (keys >> _ROW_BITS) & ((1 << _DISTANCE_BITS) - 1)
        return Ranked(starts, keys & ((1 << _ROW_BITS) - 1), distances.astype(np.int32))

    def _expanded(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = np.cumsum(counts)
        self._rows_file.touch(4 * starts, 4 * (starts + counts))
        total = int(ends[-1]) if len(ends) else 0
        places = np.arange(total) + np.repeat(starts - (ends - counts), counts)
        return self._rows[places].astype(np.int64)


def group_equal(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order rows so that equal codes stand together, ascending within; say where each group starts.

    Returns:
        rows int64 [n], starts int64 [u].
    """
    wide = words(codes)  # eight bytes at once: sorting bytes is slow
    rows = np.lexsort(wide.T) if wide.shape[1] > 1 else np.argsort(wide[:, 0], kind="stable")
    changes = np.zeros(len(rows), np.bool_)
    changes[:1] = True
    for word in wide.T:
        ordered = word[rows]
        changes[1:] |= ordered[1:] != ordered[:-1]
    return rows, np.flatnonzero(changes)
