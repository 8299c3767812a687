"""Put the rows nearest by distance into the order of the cosine of their vectors.

Of each query, ``most`` rows are chosen by Hamming distance: the nearest, and all that tie with the
last of them. So the choice depends on the codes alone, not on the order of ids. These rows are
scored with the int8 vectors of the index (``vectors``), and the k best are returned. A row that was
not chosen might have had a better score: unlike ``scores``, this proves nothing about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.matches import NamedRows, Scored
from schn_ray.retrieval.index.postings import Postings
from schn_ray.retrieval.index.scan import Bytes, Pairs
from schn_ray.retrieval.index.vectors import IndexVectors, VectorQueries, as_queries

_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 1 << 18  # that are scored before all but the best are dropped


class Candidates(NamedTuple):
    """The distinct codes of the rows nearest to q queries, the ties of the last row included.

    Attributes:
        pairs: the codes; those of a query in a row, queries ascending.
        starts: int64 [q + 1], where each query's pairs begin.
        within_radius: int64 [q], rows within the radius, chosen or not.
    """

    pairs: Pairs
    starts: NDArray[np.int64]
    within_radius: NDArray[np.int64]


class RescoredRows(Protocol):
    """An index that has vectors."""

    def candidates(self, codes: Bytes, most: int | None, radius: int | None) -> Candidates:
        """Return the codes of the ``most`` nearest rows, or of all within the radius."""

    def row_vectors(self, name: str) -> tuple[IndexVectors, Postings]:
        """Return vectors of all rows, and the rows of each code."""


def rescore(
    parts: Sequence[RescoredRows],
    firsts: Sequence[int],
    name: str,
    codes: Bytes,
    vectors: NDArray[np.floating],
    k: int | None,
    most: int | None,
    radius: int | None,
    names: NamedRows,
    rank: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> Scored:
    """Return the k best by cosine of the ``most`` nearest rows of indexes that are one.

    Args:
        parts: indexes.
        firsts: the number that row 0 of each has.
        name: of the vectors.
        codes: uint8 [q, w], which choose the rows.
        vectors: [q, d], which score them.
        k: rows of each query; None: all that were scored.
        most: rows to score of each query, with ties at the last distance all of them; None: all
            within the radius.
        radius: only rows at most so many bits away; None for any distance.
        names: looks up ids and uris of the rows.
        rank: row numbers [m] -> the order of their ids [m].

    Raises:
        SchnRayError: neither ``most`` nor a radius, k or ``most`` below 1, an index without these
            vectors, or queries of another width or that are not finite.
    """
    least = min(1 if number is None else number for number in (k, most))
    if (most is None and radius is None) or least < 1 or (radius or 0) < 0:
        raise SchnRayError(
            f"k is {k}, of {most} candidates within {radius} bits; name 1 or more candidates, a "
            "radius from 0 on, or both"
        )
    each = [part.row_vectors(name) for part in parts]
    for stored, _ in each:
        if vectors.ndim != 2 or vectors.shape != (len(codes), stored.width):
            raise SchnRayError(
                f"the {name} of the queries have the shape {vectors.shape}; the index holds "
                f"vectors of {stored.width} numbers. They must come from the index's model"
            )
    queries = as_queries(vectors)
    best, counts, within = list[_Best](), list[int](), list[NDArray[np.int64]]()
    for start in range(0, len(codes), _QUERIES_AT_ONCE):
        block = codes[start : start + _QUERIES_AT_ONCE]
        chosen = _chosen(parts, each, block, most, radius)
        within.append(np.sum([near.within_radius for near in chosen], axis=0))
        for query in range(len(block)):
            scored = _Best(k)
            for (stored, postings), near, first in zip(each, chosen, firsts, strict=True):
                own = slice(near.starts[query], near.starts[query + 1])
                pairs = near.pairs.take(own)
                scored.add(stored, postings, pairs, queries, start + query, first)
            counts.append(scored.count)
            scored.sort(rank)
            best.append(scored)
    lengths = [len(scored.rows) for scored in best]
    return Scored(
        np.append(0, np.cumsum(lengths, dtype=np.int64)),
        np.concatenate([np.zeros(0, np.int64), *(scored.rows for scored in best)]),
        np.concatenate([np.zeros(0), *(scored.scores for scored in best)]),
        np.concatenate([np.zeros(0, np.int32), *(scored.distances for scored in best)]),
        np.array([scored.tied for scored in best], np.int64),
        None if radius is None else np.concatenate([np.zeros(0, np.int64), *within]),
        names,
        np.array(counts, np.int64),
    )


def _chosen(
    parts: Sequence[RescoredRows],
    each: Sequence[tuple[IndexVectors, Postings]],
    codes: Bytes,
    most: int | None,
    radius: int | None,
) -> list[Candidates]:
    """Return each index's codes among the ``most`` nearest rows of all of them."""
    chosen = [part.candidates(codes, most, radius) for part in parts]
    if len(parts) == 1 or most is None:
        return chosen
    pairs = Pairs(*map(np.concatenate, zip(*(near.pairs for near in chosen), strict=True)))
    counts = np.concatenate(
        [
            postings.counts(near.pairs.numbers)
            for (_, postings), near in zip(each, chosen, strict=True)
        ]
    )
    last = last_distances(pairs.queries, pairs.distances, counts, len(codes), most)
    return [as_candidates(near.pairs.upto(last), len(codes), near.within_radius) for near in chosen]


def last_distances(
    queries: NDArray[np.int64],
    distances: NDArray[np.int32],
    counts: NDArray[np.int64],
    of: int,
    most: int,
) -> NDArray[np.int32]:
    """Return the distance of each query's ``most``-th row, or of its last: int32 [q].

    Args:
        queries: int64 [p], of pairs of a query and a code.
        distances: int32 [p].
        counts: int64 [p], rows of each code.
        of: number of queries.
        most: at least 1.
    """
    order = np.lexsort((distances, queries))
    starts = np.searchsorted(queries[order], np.arange(of + 1))
    rows = np.append(0, np.cumsum(counts[order]))
    column = np.searchsorted(rows, rows[starts[:-1]] + most) - 1  # the pair that has that row
    column = np.minimum(column, starts[1:] - 1)
    last: NDArray[np.int32] = np.where(starts[1:] > starts[:-1], distances[order][column], 0)
    return last.astype(np.int32)


def as_candidates(pairs: Pairs, queries: int, within_radius: NDArray[np.int64]) -> Candidates:
    """Return pairs sorted by query.

    Args:
        pairs: in any order.
        queries: number of queries.
        within_radius: int64 [q].
    """
    order = np.argsort(pairs.queries, kind="stable")
    ordered = pairs.take(order)
    starts = np.searchsorted(ordered.queries, np.arange(queries + 1))
    return Candidates(ordered, starts, within_radius)


class _Best:
    """The best rows of one query so far, and all that tie with the last of them.

    Args:
        k: rows to return; None for all.

    Attributes:
        rows, scores, distances: of the rows, [m] each.
        count: rows that were scored.
        tied: rows with the last score; known once sorted.
    """

    def __init__(self, k: int | None) -> None:
        self._k, self.count, self.tied = k, 0, 0
        self.rows, self.scores = np.zeros(0, np.int64), np.zeros(0)
        self.distances = np.zeros(0, np.int32)

    def add(
        self,
        vectors: IndexVectors,
        postings: Postings,
        pairs: Pairs,
        queries: VectorQueries,
        query: int,
        first: int,
    ) -> None:
        """Score all rows of a query's codes in one index, whose row 0 has the number ``first``."""
        counts = postings.counts(pairs.numbers)
        rows = postings.expand(pairs.numbers, counts)
        distances = np.repeat(pairs.distances, counts)
        self.count += len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            scores = vectors.scores(queries, query, rows[block])
            self._append(rows[block] + first, scores, distances[block])

    def _append(
        self, rows: NDArray[np.int64], scores: NDArray[np.float64], distances: NDArray[np.int32]
    ) -> None:
        self.rows = np.concatenate([self.rows, rows])
        self.scores = np.concatenate([self.scores, scores])
        self.distances = np.concatenate([self.distances, distances])
        if self._k is not None and len(self.rows) > self._k:
            last = np.partition(self.scores, -self._k)[-self._k]
            self._take(self.scores >= last)

    def sort(self, rank: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Sort by score, equal scores by id; count the ties of the k-th row, and cut after it."""
        self._take(np.lexsort((rank(self.rows), -self.scores)))
        cut = slice(None, self._k)
        if len(self.rows):
            self.tied = int((self.scores == self.scores[cut][-1]).sum())
        self._take(cut)

    def _take(self, chosen: NDArray[np.generic] | slice) -> None:
        self.rows, self.scores = self.rows[chosen], self.scores[chosen]
        self.distances = self.distances[chosen]
