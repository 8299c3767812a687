"""Connected components of the graph of neighbours: codes at most r bits apart are neighbours.

Not every pair has to be looked at. Codes that are connected already need no comparison, and to
connect a code with a component, its nearest member is enough. So each band first compares every
code with the few after it in the order of the band: in dense galleries, that connects most codes.
Then groups of near keys are compared in blocks, in which the members of large components are left
out among themselves. The result is exact all the same: only pairs of one component are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.duplicates.bands import (
    SHIFTED,
    Band,
    Sorted,
    choose_bands,
    distances_between,
    group_starts,
    masks,
    pairs_within,
    positions,
    sort_by,
    table_of,
    word_view,
)
from schn_ray.retrieval.duplicates.components import Components
from schn_ray.retrieval.index.scan import Bytes

_SEEDS = 8  # codes after each that are compared with it first, in groups of any size
_AT_ONCE = 1 << 15  # codes compared by one shift; they fit into the cache
_PAIRS_AT_ONCE = 1 << 22  # of a block; each may be within the radius
_LARGE = 256  # codes of a component that is left out among itself
_MANY = 16  # of them in a block; fewer are compared as others are

Rows = NDArray[Any]  # of integers


def connected_labels(codes: Bytes, bits: int, radius: int) -> NDArray[np.uint32]:
    """Label the connected components of the graph of neighbours.

    Args:
        codes: uint8 [u, w], distinct; less than 2**32 of them.
        bits: of a code.
        radius: bits in which neighbours may differ.

    Returns:
        uint32 [u], equal for codes of the same component: the number of its first code.

    Example:
        >>> connected_labels(np.array([[0], [1], [3], [192]], np.uint8), 8, 1).tolist()
        [0, 0, 0, 3]
    """
    if radius >= bits:
        return np.zeros(len(codes), np.uint32)
    components = Components(len(codes))
    if radius > 0 and len(codes) > 1:
        NeighbourSearch(word_view(codes), bits, radius, components).run()
    return components.roots(np.arange(len(codes)))


class NeighbourSearch:
    """The search for neighbours that are not connected yet.

    Args:
        words: uint64 [u, w], distinct codes.
        bits: of a code.
        radius: bits in which neighbours may differ; from 1 to bits - 1.
        components: of u nodes, which the search connects.

    Attributes:
        bands: by which it searches.
    """

    def __init__(
        self, words: NDArray[np.uint64], bits: int, radius: int, components: Components
    ) -> None:
        self._words, self._radius, self._components = words, radius, components
        self.bands = choose_bands(words, bits, radius)

    def run(self) -> None:
        """Connect all neighbours."""
        # what one band connects need not be compared in the blocks of another
        unfinished = [band for band in self.bands if not self.compare_by_shifts(band)]
        for band in unfinished:
            self._compare_blocks(band)

    def compare_by_shifts(self, band: Band) -> bool:
        """Compare each code with those after it in the order of a band; tell if that was all."""
        ordered = sort_by(self._words, band)
        starts = group_starts(ordered.keys)
        sizes = np.diff(starts)
        small = sizes <= SHIFTED if band.threshold == 0 else np.zeros(len(sizes), np.bool_)
        largest = int(sizes[small].max(initial=0))
        ends = np.repeat(np.where(small, starts[1:], 0), sizes)
        active = np.flatnonzero(ends)
        for shift in range(1, min(max(largest, _SEEDS + 1), len(ordered.rows))):
            if shift > _SEEDS:
                active = active[ends[active] > active + shift]
            if shift <= _SEEDS or len(active) > len(ends) // 4:
                self._connect_all(ordered, shift)  # pairs of two groups do no harm
            else:
                self._connect_active(ordered, active, shift)
        return band.threshold == 0 and bool(small.all())

    def _connect_all(self, ordered: Sorted, shift: int) -> None:
        words, rows = ordered.words, ordered.rows
        for start in range(0, len(rows) - shift, _AT_ONCE):
            second = words[start + shift : start + shift + _AT_ONCE]
            near = np.flatnonzero(
                distances_between(words[start : start + len(second)], second) <= self._radius
            )
            if len(near):
                near += start
                self._components.connect(rows[near], rows[near + shift])

    def _connect_active(self, ordered: Sorted, active: NDArray[np.int64], shift: int) -> None:
        words, rows = ordered.words, ordered.rows
        for start in range(0, len(active), _AT_ONCE):
            first = active[start : start + _AT_ONCE]
            near = distances_between(words[first], words[first + shift]) <= self._radius
            first = first[near]
            if len(first):
                self._components.connect(rows[first], rows[first + shift])

    def _compare_blocks(self, band: Band) -> None:
        ordered = sort_by(self._words, band)
        for low, high, others in _groups(ordered, band):
            start = low
            while start < high:
                reach = np.concatenate([np.arange(start, high), others])
                stop = min(high, start + max(1, _PAIRS_AT_ONCE // len(reach)))
                self._connect_block(ordered, np.arange(start, stop), reach)
                start = stop

    def _connect_block(self, ordered: Sorted, first: Rows, second: Rows) -> None:
        """Connect codes of two lists of positions, the first one a part of the second."""
        components = self._components
        if components.largest < _LARGE:
            self._connect_within(ordered, first, second)
            return
        labels = components.roots(ordered.rows[second])
        if (labels == labels[0]).all():
            return
        own = labels[: len(first)]
        many, label_order, run_starts = _runs(labels, components.sizes(labels) >= _LARGE)
        for low, high in zip(run_starts[:-1].tolist(), run_starts[1:].tolist(), strict=True):
            run = label_order[low:high]
            self._connect_nearest(ordered, first[own != labels[run[0]]], second[run])
        if len(run_starts) == 1:
            self._connect_within(ordered, first, second)
            return
        own_many = many[: len(first)]
        few_first, few = first[~own_many], second[~many]
        for label in np.unique(own[own_many]):
            self._connect_nearest(ordered, few, first[own_many & (own == label)])
        self._connect_within(ordered, few_first, few)

    def _connect_nearest(self, ordered: Sorted, codes: Rows, component: Rows) -> None:
        """Connect codes with a component whose nearest member is within the radius."""
        if not (len(codes) and len(component)):
            return
        distances, nearest = faiss.knn_hamming(
            _bytes(ordered.words, codes), _bytes(ordered.words, component), 1
        )
        near = distances[:, 0] <= self._radius
        if near.any():
            members = component[nearest[near, 0]]
            self._components.connect(ordered.rows[codes[near]], ordered.rows[members])

    def _connect_within(self, ordered: Sorted, first: Rows, second: Rows) -> None:
        if not (len(first) and len(second)):
            return
        queries, numbers, _ = pairs_within(
            _bytes(ordered.words, first), _bytes(ordered.words, second), self._radius
        )
        codes, others = first[queries], second[numbers]
        apart = codes != others
        if apart.any():
            self._components.connect(ordered.rows[codes[apart]], ordered.rows[others[apart]])


def _groups(ordered: Sorted, band: Band) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield start and end of each group that shifts left out, and the positions of near keys.

    Of two groups with near keys, the one with the smaller key has the other's positions.
    """
    starts = group_starts(ordered.keys)
    bounds = zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    if band.threshold == 0:
        none = np.zeros(0, np.int64)
        yield from ((low, high, none) for low, high in bounds if high - low > SHIFTED)
        return
    table, differences = table_of(ordered.keys, band), masks(band)
    for low, high in bounds:
        key = int(ordered.keys[low])
        near = key ^ differences
        near = near[near > key]
        yield low, high, positions(table[near], table[near + 1])


def _runs(
    labels: NDArray[np.uint32], large: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Find the large components with many members in a block.

    Args:
        labels: uint32 [n], of the block's codes.
        large: bool [n], whether the component of each is large.

    Returns:
        bool [n], whether each code is such a member; their positions, component by component; and
        where each component starts in these.
    """
    if not large.any():
        return large, np.zeros(0, np.int64), np.zeros(1, np.int64)
    at = np.flatnonzero(large)
    at = at[np.argsort(labels[at], kind="stable")]
    starts = group_starts(labels[at])
    sizes = np.diff(starts)
    at = at[np.repeat(sizes >= _MANY, sizes)]
    many = np.zeros(len(labels), np.bool_)
    many[at] = True
    return many, at, np.append(0, np.cumsum(sizes[sizes >= _MANY]))


def _bytes(words: NDArray[np.uint64], at: Rows) -> Bytes:
    return words[at].view(np.uint8)
