"""Search more than one index as if they were one: the exact merge of their results.

``IndexUnion._rank_by_id`` keeps ties in the order of ids over all indexes, and ``_search_block``
counts the ties of all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError, UnknownId
from schn_ray.retrieval.index.contents import DIGEST
from schn_ray.retrieval.index.index import Index, bytes_per_code, open_index
from schn_ray.retrieval.index.matches import Matches, Scored, Within
from schn_ray.retrieval.index.rescoring import rescore
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.where import BadCondition

_QUERIES_AT_ONCE = 1024


class Searchable(Protocol):
    """An ``Index``, or an ``IndexUnion``."""

    bits: int
    model: str

    def __len__(self) -> int:
        """Return the number of rows."""

    def search(self, codes: Bytes, k: int) -> Matches:
        """See ``Index.search``."""

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """See ``Index.within``."""

    def scored(
        self, relaxed: NDArray[np.floating], k: int | None, radius: int | None = None
    ) -> Scored:
        """See ``Index.scored``."""

    def rescored(
        self,
        by: str,
        codes: Bytes,
        vectors: NDArray[np.floating],
        k: int | None,
        candidates: int | None,
        radius: int | None = None,
    ) -> Scored:
        """See ``Index.rescored``."""

    def vectors(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """See ``Index.vectors``."""

    def where(self, condition: str) -> Searchable:
        """See ``Index.where``."""

    def passes(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See ``Index.passes``."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the uris of rows, the locations of their images."""

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows."""

    def contents(self, rows: NDArray[np.int64]) -> Bytes:
        """See ``Index.contents``."""

    def same_contents(self, digests: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See ``Index.same_contents``."""

    def find(self, id: str) -> int:
        """Return the row of an id."""


def open_union(paths: Sequence[Path | str]) -> Searchable:
    """Open one index, or more than one as a union.

    Args:
        paths: at least one index, each a path or a URI.

    Raises:
        SchnRayError: as ``open_index``, or the indexes were encoded by different models.
    """
    return as_one([open_index(path) for path in paths])


def as_one(indexes: Sequence[Index]) -> Searchable:
    """Return one index as it is, more than one as a union.

    Args:
        indexes: at least one.

    Raises:
        SchnRayError: the indexes were encoded by different models.
    """
    return indexes[0] if len(indexes) == 1 else IndexUnion(indexes)


class IndexUnion:
    """Indexes of one model, searched as one.

    Rows are numbered index after index, so row numbers follow the order of ids only within one of
    them. Equal distances come in the order of ids all the same. If more than one index has an id,
    each of these rows is a match of its own.

    Args:
        indexes: at least one.

    Raises:
        SchnRayError: the indexes were encoded by different models.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        first = indexes[0]
        for other in indexes[1:]:
            if (other.bits, other.model) != (first.bits, first.model):
                raise SchnRayError(
                    f"{first.path} and {other.path} were encoded by different models; their codes "
                    "cannot be compared. Search them one by one"
                )
        self.bits, self.model = first.bits, first.model
        self._indexes = list(indexes)
        self._firsts = np.append(0, np.cumsum([len(index) for index in indexes]))

    def __len__(self) -> int:
        """See ``Index.__len__``."""
        return sum(len(index) for index in self._indexes)

    def search(self, codes: Bytes, k: int) -> Matches:
        """See ``Index.search``."""
        parts = [
            self._search_block(codes[start : start + _QUERIES_AT_ONCE], k)
            for start in range(0, max(1, len(codes)), _QUERIES_AT_ONCE)
        ]
        columns = zip(*((part.rows, part.distances, part.tied) for part in parts), strict=True)
        rows, distances, tied = map(np.concatenate, columns)
        return Matches(rows, distances, tied, self)

    def _search_block(self, codes: Bytes, k: int) -> Matches:
        parts = [index.search(codes, k) for index in self._indexes]
        rows = np.concatenate(
            [part.rows + first for part, first in zip(parts, self._firsts, strict=False)], axis=1
        )
        distances = np.concatenate([part.distances for part in parts], axis=1)
        order = np.lexsort((self._rank_by_id(rows), distances), axis=1)[:, : min(k, len(self))]
        best = np.take_along_axis(distances, order, axis=1)
        tied = np.zeros(len(codes), np.int64)
        for part in parts:
            if not part.distances.shape[1]:
                continue  # of an index without rows that pass
            # an index whose own last match is farther has returned all of its ties
            at_last = part.distances[:, -1] == best[:, -1]
            returned = (part.distances == best[:, -1:]).sum(axis=1)
            tied += np.where(at_last, part.tied, returned)
        return Matches(np.take_along_axis(rows, order, axis=1), best, tied, self)

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """See ``Index.within``."""
        parts = [index.within(codes, radius, most) for index in self._indexes]
        lengths = [np.diff(part.starts) for part in parts]
        query = np.concatenate([np.repeat(np.arange(len(codes)), n) for n in lengths])
        rows = np.concatenate(
            [part.rows + first for part, first in zip(parts, self._firsts, strict=False)]
        )
        distances = np.concatenate([part.distances for part in parts])
        order = np.lexsort((self._rank_by_id(rows), distances, query))
        starts = np.append(0, np.cumsum(np.sum(lengths, axis=0)))
        if most is not None:
            order = order[np.arange(len(order)) - starts[query[order]] < most]
            starts = np.append(0, np.cumsum(np.minimum(np.diff(starts), most)))
        total = np.sum([part.within_radius for part in parts], axis=0)
        return Within(starts, rows[order], distances[order], total, self)

    def scored(
        self, relaxed: NDArray[np.floating], k: int | None, radius: int | None = None
    ) -> Scored:
        """See ``Index.scored``."""
        parts = [index.scored(relaxed, k, radius) for index in self._indexes]
        lengths = [np.diff(part.starts) for part in parts]
        query = np.concatenate([np.repeat(np.arange(len(relaxed)), n) for n in lengths])
        rows = np.concatenate(
            [part.rows + first for part, first in zip(parts, self._firsts, strict=False)]
        )
        scores = np.concatenate([part.scores for part in parts])
        order = np.lexsort((self._rank_by_id(rows), -scores, query))
        starts = np.append(0, np.cumsum(np.sum(lengths, axis=0)))
        if k is not None:
            order = order[np.arange(len(order)) - starts[query[order]] < k]
            starts = np.append(0, np.cumsum(np.minimum(np.diff(starts), k)))
        last = np.full(len(relaxed), np.inf)
        filled = np.diff(starts) > 0
        last[filled] = scores[order][starts[1:][filled] - 1]
        tied = np.zeros(len(relaxed), np.int64)
        for part in parts:
            # an index whose own last row is worse has returned all rows of this score
            own = np.repeat(np.arange(len(relaxed)), np.diff(part.starts))
            returned = np.bincount(own[part.scores == last[own]], minlength=len(relaxed))
            ends = np.full(len(relaxed), -np.inf)
            filled_part = np.diff(part.starts) > 0
            ends[filled_part] = part.scores[part.starts[1:][filled_part] - 1]
            tied += np.where(ends == last, part.tied, returned)
        total = [part.within_radius for part in parts if part.within_radius is not None]
        distances = np.concatenate([part.distances for part in parts])
        within_radius = np.sum(total, axis=0) if total else None
        return Scored(
            starts, rows[order], scores[order], distances[order], tied, within_radius, self
        )

    def rescored(
        self,
        by: str,
        codes: Bytes,
        vectors: NDArray[np.floating],
        k: int | None,
        candidates: int | None,
        radius: int | None = None,
    ) -> Scored:
        """See ``Index.rescored``; the candidates are the nearest rows of all indexes."""
        firsts, rank = self._firsts[:-1].tolist(), self._rank_by_id
        return rescore(self._indexes, firsts, by, codes, vectors, k, candidates, radius, self, rank)

    def vectors(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """See ``Index.vectors``."""
        width = self._indexes[0].row_vectors(name)[0].width
        vectors = np.empty((len(rows), width), np.int8)
        for index, positions, own_rows in self._by_index(rows):
            vectors[positions] = index.vectors(name, own_rows)
        return vectors

    def where(self, condition: str) -> IndexUnion:
        """See ``Index.where``; all of the indexes must have the columns.

        Raises:
            BadCondition: as ``Index.where``; the index is named.
        """
        view = copy.copy(self)
        view._indexes = [_where(index, condition) for index in self._indexes]
        return view

    def passes(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See ``Index.passes``."""
        passing = np.zeros(len(rows), np.bool_)
        for index, positions, own_rows in self._by_index(rows):
            passing[positions] = index.passes(own_rows)
        return passing

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""
        return self._strings("ids", rows)

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the uris of rows, the locations of their images."""
        return self._strings("uris", rows)

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows: uint8 [r, ceil(bits / 8)]."""
        codes = np.empty((len(rows), bytes_per_code(self.bits)), np.uint8)
        for index, positions, own_rows in self._by_index(rows):
            codes[positions] = index.codes(own_rows)
        return codes

    def contents(self, rows: NDArray[np.int64]) -> Bytes:
        """See ``Index.contents``."""
        digests = np.empty((len(rows), DIGEST), np.uint8)
        for index, positions, own_rows in self._by_index(rows):
            digests[positions] = index.contents(own_rows)
        return digests

    def same_contents(self, digests: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See ``Index.same_contents``; rows of a digest come in the order of ids over all."""
        parts = [index.same_contents(digests) for index in self._indexes]
        numbers = np.concatenate([number for number, _ in parts])
        pairs = zip(parts, self._firsts, strict=False)
        rows = np.concatenate([own_rows + first for (_, own_rows), first in pairs])
        order = np.lexsort((self._rank_by_id(rows), numbers))
        return numbers[order], rows[order]

    def find(self, id: str) -> int:
        """Return the row of an id, in the first index that has it.

        Raises:
            UnknownId: no index has it.
            SchnRayError: an index is damaged.
        """
        for first, index in zip(self._firsts, self._indexes, strict=False):
            try:
                return int(first) + index.find(id)
            except UnknownId as error:
                missing = error
        raise missing

    def _strings(self, column: Literal["ids", "uris"], rows: NDArray[np.int64]) -> list[str]:
        strings = [""] * len(rows)
        for index, positions, own_rows in self._by_index(rows):
            values = index.ids(own_rows) if column == "ids" else index.uris(own_rows)
            for position, value in zip(positions.tolist(), values, strict=True):
                strings[position] = value
        return strings

    def _by_index(
        self, rows: NDArray[np.int64]
    ) -> list[tuple[Index, NDArray[np.int64], NDArray[np.int64]]]:
        """Split rows by index -> (index, positions in ``rows``, the index's row numbers)."""
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        positions = [np.flatnonzero(owner == i) for i in range(len(self._indexes))]
        return [
            (index, at, rows[at] - first)
            for index, at, first in zip(self._indexes, positions, self._firsts, strict=False)
        ]

    def _rank_by_id(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank of each row's id among the ids of these rows, of the same shape."""
        flat = rows.ravel()
        ids = pa.array(self._strings("ids", flat), pa.large_string())
        ranks: NDArray[np.int64] = pc.rank(ids, tiebreaker="first").to_numpy().astype(np.int64)
        return ranks.reshape(rows.shape)


def _where(index: Index, condition: str) -> Index:
    try:
        return index.where(condition)
    except BadCondition as error:
        raise BadCondition(f"{index.path}: {error}") from error
