"""From distinct codes to rows: the list of rows of each code, and the ranking of rows (ties).

A scan returns distinct codes; ``Postings`` knows which rows have each of them.

- Ties are handled here. ``Postings.levels`` finds the distance of the k-th row and counts all rows
  at that distance. ``Postings.rank`` sorts rows by (query, distance, row number) and cuts after k.
  Rows are numbered in the order of their ids, so equal distances come in the order of ids.
- ``group_equal`` makes the lists when an index is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.index.checked_files import CheckedFile
from schn_ray.retrieval.index.scan import Pairs, uint64_words

_ROW_BITS, _DISTANCE_BITS = 32, 17  # of a sort key; queries take what is left of 64
QUERIES_AT_MOST = 1 << (63 - _ROW_BITS - _DISTANCE_BITS)


class Ranked(NamedTuple):
    """Rows of q queries: sorted by query, then by distance, then by row number.

    Attributes:
        starts: int64 [q + 1], where each query's rows begin.
        rows: int64 [m], row numbers.
        distances: int32 [m], in bits.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.int32]


class Levels(NamedTuple):
    """Rows of q queries, counted by distance.

    Attributes:
        last: int32 [q], the distance of the last row to return: the k-th, or the farthest.
        tied: int64 [q], rows at that distance.
        within_radius: int64 [q], rows at any distance within the scan's radius.
    """

    last: NDArray[np.int32]
    tied: NDArray[np.int64]
    within_radius: NDArray[np.int64]


class Postings:
    """The lists of rows of u distinct codes, mapped.

    Args:
        files: the index's files by name; ``starts`` and ``rows`` are read.
    """

    def __init__(self, files: Mapping[str, CheckedFile]) -> None:
        self._starts_file, self._rows_file = files["starts"], files["rows"]
        self._starts = self._starts_file.array(np.int64)
        self._rows = self._rows_file.array(np.uint32)

    @property
    def total(self) -> int:
        """The number of rows of all codes."""
        return len(self._rows)

    def counts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows have each of these codes; 0 for the number -1, which is no code."""
        codes = np.maximum(numbers, 0)
        self._starts_file.check(8 * codes.ravel(), 8 * codes.ravel() + 16)
        counts: NDArray[np.int64] = self._starts[codes + 1] - self._starts[codes]
        return np.where(numbers < 0, 0, counts)

    def whole(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return where each code's rows begin, int64 [u + 1], and the rows, uint32 [n]."""
        self._starts_file.check_all()
        self._rows_file.check_all()
        return self._starts, self._rows

    def all_counts(self) -> NDArray[np.int64]:
        """Return how many rows each code has: int64 [u]."""
        self._starts_file.check_all()
        return np.diff(self._starts)

    def first_rows(self) -> NDArray[np.int64]:
        """Return the first row of each code: int64 [u]."""
        self._starts_file.check_all()
        codes = np.arange(len(self._starts) - 1)
        return self.expand(codes, np.ones_like(codes))

    def levels(self, pairs: Pairs, queries: int, most: int) -> Levels:
        """Find the distance of each query's last row to return, and count its rows.

        Args:
            pairs: the codes near each query.
            queries: number of queries.
            most: rows to return of each query.
        """
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
        """Expand codes into their rows, and sort these.

        Args:
            pairs: the codes near each query, none farther than the query's ``most``-th row.
            queries: number of queries, at most QUERIES_AT_MOST.
            most: rows to return of each query; None for all.
        """
        counts = self.counts(pairs.numbers)
        # a list ascends, and all its rows tie: only its first ``most`` rows can be returned
        taken = counts if most is None else np.minimum(counts, most)
        rows = self.expand(pairs.numbers, taken)
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

    def expand(self, numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first rows of each of these codes, one code after the other: int64 [m].

        Args:
            numbers: int64 [p], of codes; their counts were read before.
            counts: int64 [p], rows to return of each.
        """
        starts = self._starts[numbers]
        ends = np.cumsum(counts)
        self._rows_file.check(4 * starts, 4 * (starts + counts))
        total = int(ends[-1]) if len(ends) else 0
        positions = np.arange(total) + np.repeat(starts - (ends - counts), counts)
        return self._rows[positions].astype(np.int64)


def group_equal(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort rows by code, equal codes by row number, and tell where each code's group starts.

    Args:
        codes: uint8 [n, w].

    Returns:
        The sorted row numbers, int64 [n], and the starts of the groups, int64 [u].

    Example:
        >>> rows, starts = group_equal(np.array([[7], [3], [7]], np.uint8))
        >>> rows.tolist(), starts.tolist()
        ([1, 0, 2], [0, 1])
    """
    wide = uint64_words(codes)  # sorting single bytes is slow
    rows = np.lexsort(wide.T) if wide.shape[1] > 1 else np.argsort(wide[:, 0], kind="stable")
    changes = np.zeros(len(rows), np.bool_)
    changes[:1] = True
    for word in wide.T:
        ordered = word[rows]
        changes[1:] |= ordered[1:] != ordered[:-1]
    return rows, np.flatnonzero(changes)
