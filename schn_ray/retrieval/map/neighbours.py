"""The nearest other codes of every code of a set of distinct codes, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.progress import Progress
from schn_ray.retrieval.index.inverted_lists import lists_that_pay
from schn_ray.retrieval.index.scan import Bytes, Flat, Scan

_AT_ONCE = 1024


class Neighbours(NamedTuple):
    """The k nearest other codes of each of u codes, ascending by distance.

    Attributes:
        numbers: int32 [u, k], of codes.
        distances: int32 [u, k], in bits.
    """

    numbers: NDArray[np.int32]
    distances: NDArray[np.int32]


def nearest_codes(codes: Bytes, k: int) -> Neighbours:
    """Find the k nearest other codes of each code; of those that tie for the last place, any.

    The search is that of the index: by lists with a certificate where these pay, else by a scan of
    all codes.

    Args:
        codes: uint8 [u, w], distinct, contiguous.
        k: neighbours of each; a set of fewer codes gives u - 1.

    Returns:
        What it found; the same codes give the same neighbours.

    Example:
        >>> nearest_codes(np.array([[0], [1], [7]], np.uint8), 1).numbers.ravel().tolist()
        [1, 0, 1]
    """
    k = min(k, len(codes) - 1)
    result = Neighbours(*(np.zeros((len(codes), k), np.int32) for _ in range(2)))
    if not k:
        return result
    lists = lists_that_pay(codes, np.ones(len(codes), np.int64))
    scan: Scan = Flat(codes) if lists is None else lists[0]
    with Progress("finding neighbours", total=len(codes), unit="codes") as progress:
        for start in range(0, len(codes), _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            numbers, distances = _nearest(scan, codes[block], k + 1)
            # the first is the code itself: no other is at distance 0
            result.numbers[block], result.distances[block] = numbers[:, 1:], distances[:, 1:]
            progress.advance(len(numbers))
    return result


def _nearest(scan: Scan, queries: Bytes, k: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return numbers and distances of the k nearest codes, each [q, k]."""
    near = scan.nearest(queries, k)
    numbers, distances = near.numbers, near.distances
    # no code that was not returned is nearer than the reach
    rest = np.flatnonzero(distances[:, -1] > near.reach)
    if len(rest):
        pairs = scan.within(queries[rest], distances[rest, -1])
        order = np.lexsort((pairs.numbers, pairs.distances, pairs.queries))
        starts = np.searchsorted(pairs.queries[order], np.arange(len(rest)))
        first = order[starts[:, None] + np.arange(k)]
        numbers[rest], distances[rest] = pairs.numbers[first], pairs.distances[first]
    return numbers, distances
