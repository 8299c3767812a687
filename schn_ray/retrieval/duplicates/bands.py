"""The multi-index: codes cut into bands, so that near codes are found by a band that is nearer.

Cut two codes into m bands and give each a threshold t_i, with sum(t_i + 1) = r + 1. If the codes
differ by at most r bits, they differ by at most t_i in at least one band: else they would differ by
sum(t_i + 1) > r (the general pigeonhole principle of Qin et al., "GPH: Similarity Search in Hamming
Space", ICDE 2018; with equal t_i, Norouzi et al., "Fast Search in Hamming Space with Multi-Index
Hashing", CVPR 2012). So codes are sorted by each band in turn, and only those whose keys are near
are compared.

A key is a band's value, or its first bits where that makes groups of better size; with t = 0 it is
a hash of the whole band. All of them may only bring more codes together, never fewer.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.index.scan import Bytes, uint64_words

_FAISS: Any = faiss  # its types leave some of it out
SHIFTED = 256  # codes; groups up to this size are compared by shifts, larger ones in blocks
_WIDEST = 22  # bits of a key with neighbours: they are looked up in a table
_HASH = np.uint64(0x9E3779B97F4A7C15)
_SAMPLE = 1 << 16

# seconds, measured: to sort a code by a band, to compare two words, to handle a block
_SORT, _COMPARE, _BLOCK = 150e-9, 0.6e-9, 150e-6


class Band(NamedTuple):
    """Bits ``low`` to ``high`` of a code, of which keys may differ by ``threshold``.

    Attributes:
        low: first bit.
        high: the bit after the last.
        key_bits: of the key; of a hash, if threshold is 0 and the band is wider.
        threshold: bits.
    """

    low: int
    high: int
    key_bits: int
    threshold: int


class Sorted(NamedTuple):
    """Codes sorted by their key of a band.

    Attributes:
        rows: uint32 [n], the number of each code.
        keys: uint32 [n], ascending.
        words: uint64 [n, w], the codes.
    """

    rows: NDArray[np.uint32]
    keys: NDArray[np.uint32]
    words: NDArray[np.uint64]


def choose_bands(words: NDArray[np.uint64], bits: int, radius: int, others: int = 0) -> list[Band]:
    """Choose the bands that a search for all pairs within a radius should cost least by.

    The costs are those of random codes. Bands are cut where each has its share of the entropy of
    single bits, so that constant bits do not make a band useless.

    Args:
        words: uint64 [n, w], the codes.
        bits: of a code.
        radius: less than ``bits``.
        others: codes of the other gallery; 0 for pairs within one.
    """
    pairs = len(words) * others if others else len(words) ** 2 // 2
    total = len(words) + others
    flat = [Band(0, bits, 0, 0)]
    cost, best = pairs * _COMPARE * words.shape[1], flat
    entropy = _entropy(words, bits)
    for count in range(1, min(radius + 1, bits) + 1):
        chosen = []
        seconds = 0.0
        cuts = _cuts(entropy, count)
        base, more = divmod(radius + 1, count)
        for number, (low, high) in enumerate(itertools.pairwise(cuts)):
            threshold = base - 1 + (number < more)
            options = [
                _priced(pairs, total, low, high, threshold, width, words.shape[1])
                for width in _widths(high - low, threshold)
            ]
            price, band = min(options)
            seconds += price
            chosen.append(band)
        if seconds < cost:
            cost, best = seconds, chosen
    return best


def _widths(band: int, threshold: int) -> range:
    if threshold == 0:
        return range(min(band, 32), min(band, 32) + 1)
    return range(min(band, 6), min(band, _WIDEST) + 1)


def _priced(
    pairs: int, codes: int, low: int, high: int, threshold: int, width: int, words: int
) -> tuple[float, Band]:
    """Return what a band costs in seconds, for random codes, and the band."""
    near = sum(math.comb(width, t) for t in range(threshold + 1))
    groups = min(2**width, codes)
    blocks = 0 if threshold == 0 and codes <= SHIFTED / 2 * 2**width else groups
    share = near / 2**width
    seconds = codes * _SORT + pairs * share * _COMPARE * words * (1 if blocks else 3)
    return seconds + blocks * (_BLOCK + near * 1e-7), Band(low, high, width, threshold)


def _entropy(words: NDArray[np.uint64], bits: int) -> NDArray[np.float64]:
    """Return the entropy of each bit, and a little: float64 [bits]."""
    step = max(1, len(words) // _SAMPLE)
    sample = np.ascontiguousarray(words[::step]).view(np.uint8)
    ones = np.unpackbits(sample, axis=1, count=bits, bitorder="little").mean(axis=0)
    p = np.clip(ones, 1e-9, 1 - 1e-9)
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p) + 1e-3


def _cuts(entropy: NDArray[np.float64], count: int) -> list[int]:
    """Cut bits into ``count`` bands of equal entropy, each of at least one bit."""
    bits = len(entropy)
    sums = np.append(0, np.cumsum(entropy))
    cuts = np.searchsorted(sums, np.linspace(0, sums[-1], count + 1) - 1e-9).tolist()
    cuts[0], cuts[-1] = 0, bits
    for i in range(1, count):
        cuts[i] = min(max(cuts[i], cuts[i - 1] + 1), bits - (count - i))
    return [int(cut) for cut in cuts]


def sort_by(words: NDArray[np.uint64], band: Band) -> Sorted:
    """Sort codes by their key of a band; equal keys stay in order.

    Args:
        words: uint64 [n, w], the codes; n at most 2**32.
        band: the band.
    """
    keyed = keys_of(words, band)
    keyed <<= np.uint64(32)
    keyed |= np.arange(len(words), dtype=np.uint64)
    keyed.sort()  # one sort of numbers is quicker than an argsort
    rows = keyed.astype(np.uint32)
    keyed >>= np.uint64(32)
    return Sorted(rows, keyed.astype(np.uint32), words[rows])


def keys_of(words: NDArray[np.uint64], band: Band) -> NDArray[np.uint64]:
    """Return the key of each code, below 2**32: uint64 [n].

    Args:
        words: uint64 [n, w], the codes.
        band: the band.
    """
    if not band.key_bits:
        return np.zeros(len(words), np.uint64)
    if band.threshold or band.high - band.low <= 32:
        return _bits(words, band.low, band.low + band.key_bits)
    keys = np.zeros(len(words), np.uint64)
    for low in range(band.low, band.high, 32):
        keys ^= _bits(words, low, min(low + 32, band.high))
        keys *= _HASH
        keys ^= keys >> np.uint64(29)
    return keys >> np.uint64(32)


def _bits(words: NDArray[np.uint64], low: int, high: int) -> NDArray[np.uint64]:
    """Return bits ``low`` to ``high``, at most 32, of each code as a number."""
    word, shift = divmod(low, 64)
    value = words[:, word] >> np.uint64(shift)
    if shift + high - low > 64:
        value |= words[:, word + 1] << np.uint64(64 - shift)
    value &= np.uint64((1 << (high - low)) - 1)
    return value


def masks(band: Band) -> NDArray[np.int64]:
    """Return the differences of near keys: all numbers of at most ``threshold`` bits, ascending.

    Args:
        band: the band.

    Example:
        >>> masks(Band(0, 8, 3, 1)).tolist()
        [0, 1, 2, 4]
    """
    flips = (
        sum(1 << bit for bit in flipped)
        for count in range(band.threshold + 1)
        for flipped in itertools.combinations(range(band.key_bits), count)
    )
    return np.array(sorted(flips), np.int64)


def positions(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of all ranges, one after the other.

    Args:
        starts: int64 [g].
        stops: int64 [g].

    Example:
        >>> positions(np.array([4, 0]), np.array([6, 1])).tolist()
        [4, 5, 0]
    """
    sizes = stops - starts
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    numbers: NDArray[np.int64] = np.arange(total) + np.repeat(starts - (ends - sizes), sizes)
    return numbers


def group_starts(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each run of equal, ascending keys starts, and the end: int64 [g + 1].

    Args:
        keys: [n].
    """
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return np.append(starts, len(keys))


def table_of(keys: NDArray[np.uint32], band: Band) -> NDArray[np.int64]:
    """Return where each possible key of a band starts among sorted keys: int64 [2**key_bits + 1].

    Args:
        keys: ascending.
        band: the band.
    """
    return np.searchsorted(keys, np.arange(2**band.key_bits + 1, dtype=np.uint64)).astype(np.int64)


def word_view(codes: Bytes) -> NDArray[np.uint64]:
    """Return codes as words of eight bytes, without a copy where that is possible.

    Args:
        codes: uint8 [n, w].
    """
    if codes.shape[1] % 8 == 0 and codes.flags.c_contiguous:
        return codes.view(np.uint64)
    return uint64_words(codes)


def distances_between(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[Any]:
    """Compute the distance of each pair, in bits: uint8 or uint16 [n].

    Args:
        first: uint64 [n, w].
        second: uint64 [n, w].
    """
    counts = np.bitwise_count(first ^ second)
    return counts[:, 0] if counts.shape[1] == 1 else counts.sum(axis=1, dtype=np.uint16)


def pairs_within(
    queries: Bytes, codes: Bytes, radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Compare all queries with all codes; return the pairs within a radius, and their distances.

    Args:
        queries: uint8 [q, w], contiguous.
        codes: uint8 [n, w], contiguous.
        radius: in bits.
    """
    result = faiss.RangeSearchResult(len(queries))
    pointers = (faiss.swig_ptr(queries), faiss.swig_ptr(codes))
    # faiss's binary range search returns distances below the radius, not at it: hence + 1
    _FAISS.hamming_range_search(
        *pointers, len(queries), len(codes), radius + 1, codes.shape[1], result
    )
    limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).astype(np.int64)
    size = int(limits[-1])
    numbers = faiss.rev_swig_ptr(result.labels, size).astype(np.int64)
    distances = faiss.rev_swig_ptr(result.distances, size).astype(np.int32)
    return np.repeat(np.arange(len(queries)), np.diff(limits)), numbers, distances
