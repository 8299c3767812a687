"""The nearest code of another gallery within a radius, exactly, by the bands of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.duplicates.bands import (
    SHIFTED,
    Band,
    Sorted,
    choose_bands,
    distances_between,
    group_starts,
    keys_of,
    masks,
    pairs_within,
    positions,
    sort_by,
    table_of,
    word_view,
)
from schn_ray.retrieval.index.scan import Bytes

_AT_ONCE = 1 << 16  # pairs compared at once, in small groups
_PAIRS_AT_ONCE = 1 << 22  # of a block; each may be within the radius
_RANK_BITS = 32
_NONE = np.iinfo(np.int64).max

# numbers of codes, numbers of the other gallery's codes, and their distances
Pairs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def nearest_within(
    codes: Bytes, others: Bytes, ranks: NDArray[np.int64], bits: int, radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the nearest of the other codes within a radius of each code.

    Args:
        codes: uint8 [u, w], distinct.
        others: uint8 [v, w], distinct.
        ranks: int64 [v], below 2**32: of equally near codes, the one of the smallest rank.
        bits: of a code.
        radius: in bits.

    Returns:
        int64 [u], the rank of the nearest code, -1 where none is within the radius; and int64 [u],
        its distance.

    Example:
        >>> codes, others = np.array([[0], [255]], np.uint8), np.array([[2], [1]], np.uint8)
        >>> nearest_within(codes, others, np.array([7, 3]), 8, 2)
        (array([ 3, -1]), array([ 1, -1]))
    """
    best = np.full(len(codes), _NONE)
    words, other_words = word_view(codes), word_view(others)
    for first, second, distances in _near_pairs(words, other_words, bits, radius):
        keys = distances.astype(np.int64) << _RANK_BITS | ranks[second]
        np.minimum.at(best, first, keys)
    matched = best != _NONE
    rank = np.where(matched, best & ((1 << _RANK_BITS) - 1), -1)
    return rank, np.where(matched, best >> _RANK_BITS, -1)


def near_pairs(codes: Bytes, others: Bytes, bits: int, radius: int) -> Iterator[Pairs]:
    """Yield all pairs of codes within a radius, each once, a part at a time.

    Args:
        codes: uint8 [u, w], distinct.
        others: uint8 [v, w], distinct.
        bits: of a code.
        radius: in bits.

    Yields:
        Numbers of codes, numbers of others, and distances, all [p].

    Example:
        >>> codes = np.array([[0], [1], [255]], np.uint8)
        >>> [sorted(zip(*map(np.ndarray.tolist, p))) for p in near_pairs(codes, codes[:1], 8, 1)]
        [[(0, 0, 0), (1, 0, 1)]]
    """
    words, other_words = word_view(codes), word_view(others)
    bands = _bands(words, other_words, bits, radius)
    for number, band in enumerate(bands):
        for first, second, distances in _near_keys(words, other_words, band, radius):
            new = np.ones(len(first), np.bool_)
            for earlier in bands[:number]:
                keys, other_keys = (
                    keys_of(w[at], earlier) for w, at in ((words, first), (other_words, second))
                )
                new &= np.bitwise_count(keys ^ other_keys) > earlier.threshold
            if new.any():
                yield first[new], second[new], distances[new]


def _bands(
    codes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int, radius: int
) -> list[Band]:
    if radius >= bits:
        return [Band(0, bits, 0, 0)]
    return choose_bands(codes, bits, radius, len(others))


def _near_pairs(
    codes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int, radius: int
) -> Iterator[Pairs]:
    """Yield all pairs within the radius, perhaps more than once."""
    for band in _bands(codes, others, bits, radius):
        yield from _near_keys(codes, others, band, radius)


def _near_keys(
    codes: NDArray[np.uint64], others: NDArray[np.uint64], band: Band, radius: int
) -> Iterator[Pairs]:
    """Yield all pairs within the radius whose keys of a band are near."""
    first, second = sort_by(codes, band), sort_by(others, band)
    if band.threshold == 0:
        yield from _equal_keys(first, second, radius)
        return
    table, differences = table_of(second.keys, band), masks(band)
    starts = group_starts(first.keys)
    for low, high in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        near = int(first.keys[low]) ^ differences
        yield from _block(first, low, high, second, positions(table[near], table[near + 1]), radius)


def _equal_keys(first: Sorted, second: Sorted, radius: int) -> Iterator[Pairs]:
    starts = group_starts(first.keys)
    keys = first.keys[starts[:-1]]
    lows, highs = (np.searchsorted(second.keys, keys, side) for side in ("left", "right"))
    sizes = highs - lows
    small = sizes <= SHIFTED
    for group in np.flatnonzero(~small).tolist():
        members = np.arange(lows[group], highs[group])
        yield from _block(
            first, int(starts[group]), int(starts[group + 1]), second, members, radius
        )
    counts = np.diff(starts)
    low = np.repeat(lows, counts)
    size = np.repeat(np.where(small, sizes, 0), counts)
    active = np.flatnonzero(size)
    for shift in range(int(size.max(initial=0))):
        active = active[size[active] > shift]
        for start in range(0, len(active), _AT_ONCE):
            at = active[start : start + _AT_ONCE]
            other = low[at] + shift
            distances = distances_between(first.words[at], second.words[other])
            near = distances <= radius
            yield first.rows[at[near]], second.rows[other[near]], distances[near]


def _block(
    first: Sorted, low: int, high: int, second: Sorted, members: NDArray[np.int64], radius: int
) -> Iterator[Pairs]:
    if not len(members):
        return
    words = second.words[members].view(np.uint8)
    step = max(1, _PAIRS_AT_ONCE // len(members))
    for start in range(low, high, step):
        stop = min(high, start + step)
        queries, numbers, distances = pairs_within(
            first.words[start:stop].view(np.uint8), words, radius
        )
        yield first.rows[start + queries], second.rows[members[numbers]], distances
