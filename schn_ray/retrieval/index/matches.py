"""Results of a search: rows and distances as arrays; ids and uris are looked up on request.

``Matches`` are the k nearest rows of each query, ``Within`` all rows within a radius. In both,
equal distances come in the order of ids; ``postings`` has the code that ranks them. ``Scored`` are
the k rows of the best scores, see ``scores`` and ``rescoring``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class NamedRows(Protocol):
    """An index that can tell the ids and uris of its rows."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the uris of rows: the locations of their images."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The k nearest rows of each of q queries: by distance, equal distances in the order of ids.

    Attributes:
        rows: int64 [q, k], row numbers; rows are numbered in the order of their ids.
        distances: int32 [q, k], Hamming distances in bits, ascending.
        tied: int64 [q], rows of the whole index at the k-th distance. Not all of them may be among
            the k: those with the first ids are.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.int32]
    tied: NDArray[np.int64]
    _names: NamedRows = field(repr=False)

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's matches, nearest first."""
        return self._names.ids(self.rows[query])

    def uris(self, query: int) -> list[str]:
        """Return the uris of one query's matches, nearest first."""
        return self._names.uris(self.rows[query])


@dataclass(frozen=True, eq=False)
class Within:
    """The rows within a radius of each of q queries: by distance, then in the order of ids.

    Attributes:
        starts: int64 [q + 1], where each query's rows begin in ``rows`` and ``distances``.
        rows: int64 [m], row numbers.
        distances: int32 [m], in bits.
        within_radius: int64 [q], rows within the radius, returned or not.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.int32]
    within_radius: NDArray[np.int64]
    _names: NamedRows = field(repr=False)

    def rows_of(self, query: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return one query's rows and their distances, nearest first."""
        of_query = slice(self.starts[query], self.starts[query + 1])
        return self.rows[of_query], self.distances[of_query]

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's rows, nearest first."""
        return self._names.ids(self.rows_of(query)[0])

    def uris(self, query: int) -> list[str]:
        """Return the uris of one query's rows, nearest first."""
        return self._names.uris(self.rows_of(query)[0])


@dataclass(frozen=True, eq=False)
class Scored:
    """The rows of the best scores of each of q queries; equal scores in the order of ids.

    Attributes:
        starts: int64 [q + 1], where each query's rows begin in the three that follow.
        rows: int64 [m], row numbers.
        scores: float64 [m], descending for each query.
        distances: int32 [m], Hamming distances in bits.
        tied: int64 [q], rows that could be returned and have the last score, returned or not.
        within_radius: int64 [q], rows within the radius; None for a search without a radius.
        candidates: int64 [q], rows that were scored, the nearest by distance; None where it is
            proven that no other row of the index could be among the best.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    distances: NDArray[np.int32]
    tied: NDArray[np.int64]
    within_radius: NDArray[np.int64] | None
    _names: NamedRows = field(repr=False)
    candidates: NDArray[np.int64] | None = None

    def rows_of(
        self, query: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
        """Return one query's rows, their scores and their distances, the best first."""
        of_query = slice(self.starts[query], self.starts[query + 1])
        return self.rows[of_query], self.scores[of_query], self.distances[of_query]

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's rows, the best first."""
        return self._names.ids(self.rows_of(query)[0])


def no_matches(queries: int, names: NamedRows) -> Matches:
    """Return the matches of an index without rows, as it is where none passes a filter.

    Args:
        queries: how many.
        names: tells ids and uris.
    """
    no_rows = np.zeros((queries, 0), np.int64)
    return Matches(no_rows, no_rows.astype(np.int32), np.zeros(queries, np.int64), names)


def none_within(queries: int, names: NamedRows) -> Within:
    """Return the rows within a radius of an index without rows; see ``no_matches``.

    Args:
        queries: how many.
        names: tells ids and uris.
    """
    rows = np.zeros(0, np.int64)
    starts, counts = np.zeros(queries + 1, np.int64), np.zeros(queries, np.int64)
    return Within(starts, rows, rows.astype(np.int32), counts, names)


def none_scored(queries: int, names: NamedRows, radius: int | None) -> Scored:
    """Return the scored rows of an index without rows; see ``no_matches``.

    Args:
        queries: how many.
        names: tells ids and uris.
        radius: of the search.
    """
    near, zeros = none_within(queries, names), np.zeros(queries, np.int64)
    within_radius = None if radius is None else zeros
    scores = np.zeros(0)
    return Scored(near.starts, near.rows, scores, near.distances, zeros, within_radius, names)
