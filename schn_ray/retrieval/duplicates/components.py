"""Sets of connected codes: a forest of parents in an array, for many pairs at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]  # of integers


class Components:
    """Connected components of n nodes, at first each alone.

    A parent is never greater than its node, so the root of a component is its smallest node.

    Args:
        nodes: n, at most 2**32.

    Attributes:
        largest: nodes of the largest component.

    Example:
        >>> components = Components(4)
        >>> components.connect(np.array([3]), np.array([1]))
        >>> components.roots(np.arange(4)).tolist()
        [0, 1, 2, 1]
    """

    def __init__(self, nodes: int) -> None:
        self._parent = np.arange(nodes, dtype=np.uint32)
        self._size = np.ones(nodes, np.uint32)
        self.largest = min(nodes, 1)

    def connect(self, first: Rows, second: Rows) -> None:
        """Connect pairs of nodes: first and second, of the same length."""
        first, second = self._apart(first, second)
        if not len(first):
            return
        before = np.sort(np.concatenate([first, second]))
        before = before[np.append(True, before[1:] != before[:-1])]  # np.unique is slow for few
        while len(first):
            # one of the pairs of a root wins; the others come again in the next round
            self._parent[np.maximum(first, second)] = np.minimum(first, second)
            first, second = self._apart(first, second)
        after = self.roots(before)
        moved = after != before
        np.add.at(self._size, after[moved], self._size[before[moved]])
        self.largest = max(self.largest, int(self._size[after].max()))

    def roots(self, nodes: Rows) -> NDArray[np.uint32]:
        """Return the root of each node: equal for nodes of the same component."""
        parents = self._parent[nodes]
        while True:
            above = self._parent[parents]
            if np.array_equal(above, parents):
                return parents
            self._parent[nodes] = above  # the way to the root is shorter next time
            parents = self._parent[above]

    def sizes(self, roots: Rows) -> NDArray[np.uint32]:
        """Return the number of nodes below each root."""
        return self._size[roots]

    def _apart(self, first: Rows, second: Rows) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        first, second = self.roots(first), self.roots(second)
        different = first != second
        return first[different], second[different]
