"""Several indexes of one model, searched as one: the exact merge of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.matches import Matches, Within
from schn_ray.retrieval.index.scan import Bytes

_QUERIES_AT_ONCE = 1024


class Searchable(Protocol):
    """One index or several."""

    bits: int
    model: str

    def __len__(self) -> int:
        """Return the number of rows."""

    def search(self, codes: Bytes, k: int) -> Matches:
        """See ``Index.search``."""

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """See ``Index.within``."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return where the images of rows are."""

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows."""

    def find(self, id: str) -> int:
        """Return the row of an id."""


def open_union(paths: Sequence[Path | str]) -> Searchable:
    """Open one index, or several as one.

    Raises:
        SchnRayError: as ``open_index``, or they were coded by different models.
    """
    indexes = [open_index(path) for path in paths]
    return indexes[0] if len(indexes) == 1 else IndexUnion(indexes)


class IndexUnion:
    """Indexes searched as one; an id that several of them have is found in each.

    Rows are numbered index by index, so only within one of them in the order of ids; results are
    in the order of ids all the same.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        first = indexes[0]
        for other in indexes[1:]:
            if (other.bits, other.model) != (first.bits, first.model):
                raise SchnRayError(
                    f"{first.path} and {other.path} were coded by different models; their codes "
                    "cannot be compared"
                )
        self.bits, self.model = first.bits, first.model
        self._indexes = list(indexes)
        self._firsts = np.append(0, np.cumsum([len(index) for index in indexes]))

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._firsts[-1])

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
        found = [index.search(codes, k) for index in self._indexes]
        rows = np.concatenate(
            [part.rows + first for part, first in zip(found, self._firsts, strict=False)], axis=1
        )
        distances = np.concatenate([part.distances for part in found], axis=1)
        kept = min(k, len(self))
        order = np.lexsort((self._places(rows), distances), axis=1)[:, :kept]
        best = np.take_along_axis(distances, order, axis=1)
        tied = np.zeros(len(codes), np.int64)
        for part in found:  # an index whose own last match is farther has shown all of the ties
            at_last = part.distances[:, -1] == best[:, -1]
            shown = (part.distances == best[:, -1:]).sum(axis=1)
            tied += np.where(at_last, part.tied, shown)
        return Matches(np.take_along_axis(rows, order, axis=1), best, tied, self)

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """See ``Index.within``."""
        found = [index.within(codes, radius, most) for index in self._indexes]
        lengths = [np.diff(part.starts) for part in found]
        query = np.concatenate([np.repeat(np.arange(len(codes)), n) for n in lengths])
        rows = np.concatenate(
            [part.rows + first for part, first in zip(found, self._firsts, strict=False)]
        )
        distances = np.concatenate([part.distances for part in found])
        order = np.lexsort((self._places(rows), distances, query))
        starts = np.append(0, np.cumsum(np.sum(lengths, axis=0)))
        if most is not None:
            order = order[np.arange(len(order)) - starts[query[order]] < most]
            starts = np.append(0, np.cumsum(np.minimum(np.diff(starts), most)))
        total = np.sum([part.found for part in found], axis=0)
        return Within(starts, rows[order], distances[order], total, self)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""
        return self._texts("ids", rows)

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return where the images of rows are."""
        return self._texts("uris", rows)

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows: uint8 [r, ceil(bits / 8)]."""
        codes = np.empty((len(rows), -(-self.bits // 8)), np.uint8)
        for index, places, own in self._by_index(rows):
            codes[places] = index.codes(own)
        return codes

    def find(self, id: str) -> int:
        """Return the row of an id, in the first index that has it.

        Raises:
            SchnRayError: none has.
        """
        for first, index in zip(self._firsts, self._indexes, strict=False):
            try:
                return int(first) + index.find(id)
            except SchnRayError as error:
                missing = error
        raise missing

    def _texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        texts = [""] * len(rows)
        for index, places, own in self._by_index(rows):
            for place, text in zip(places.tolist(), getattr(index, name)(own), strict=True):
                texts[place] = text
        return texts

    def _by_index(
        self, rows: NDArray[np.int64]
    ) -> list[tuple[Index, NDArray[np.int64], NDArray[np.int64]]]:
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        places = [np.flatnonzero(owner == i) for i in range(len(self._indexes))]
        return [
            (index, at, rows[at] - first)
            for index, at, first in zip(self._indexes, places, self._firsts, strict=False)
        ]

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return each row's place in the order of ids among these rows, of the same shape."""
        flat = rows.ravel()
        ids = pa.array(self._texts("ids", flat), pa.large_string())
        places: NDArray[np.int64] = pc.rank(ids, tiebreaker="first").to_numpy().astype(np.int64)
        return places.reshape(rows.shape)
