"""What a search found: rows and distances as arrays, ids and uris on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class NamedRows(Protocol):
    """Names rows: their ids, and where their images are."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return where the images of rows are."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The nearest rows of each of q queries, by distance, equal distances by the order of ids.

    Attributes:
        rows: int64 [q, k], row numbers; rows are numbered in the order of their ids.
        distances: int32 [q, k], Hamming distances in bits, ascending.
        tied: int64 [q], how many rows of the whole index lie at the k-th distance. Where more
            lie there than were returned, ids that come first in the alphabet were preferred.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.int32]
    tied: NDArray[np.int64]
    _names: NamedRows = field(repr=False)

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's matches, nearest first."""
        return self._names.ids(self.rows[query])

    def uris(self, query: int) -> list[str]:
        """Return where the images of one query's matches are, nearest first."""
        return self._names.uris(self.rows[query])


@dataclass(frozen=True, eq=False)
class Within:
    """The rows within a radius of each of q queries, by distance, then by the order of ids.

    Attributes:
        starts: int64 [q + 1], where each query's rows begin in
        rows: int64 [m], row numbers.
        distances: int32 [m], in bits.
        found: int64 [q], rows within the radius, also those that were not returned.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    distances: NDArray[np.int32]
    found: NDArray[np.int64]
    _names: NamedRows = field(repr=False)

    def rows_of(self, query: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return one query's rows and their distances, nearest first."""
        of_query = slice(self.starts[query], self.starts[query + 1])
        return self.rows[of_query], self.distances[of_query]

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's rows, nearest first."""
        return self._names.ids(self.rows_of(query)[0])

    def uris(self, query: int) -> list[str]:
        """Return where the images of one query's rows are, nearest first."""
        return self._names.uris(self.rows_of(query)[0])
