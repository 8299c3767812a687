"""Scan distinct codes for those near a query: all codes (``Flat``), or only some lists (``Lists``).

Lists are k-means clusters of the codes (faiss's inverted lists). The radius of a list is the
largest distance of a member to its centroid. By the triangle inequality, no member is nearer to a
query than d(query, centroid) - radius; ``Lists.bounds`` computes this lower bound. It is the
certificate that makes a scan of few lists exact:

- ``Lists.nearest`` scans the few nearest lists. It returns a ``reach``: every code that it did not
  return is at least so far away. So all matches nearer than the reach are complete.
- ``Lists.within`` scans exactly the lists whose bound is within the radius. Where these hold most
  of the codes, ``Lists.worth_it`` says no, and all codes are scanned.

``index.Index`` decides per query, by the reach, whether ``nearest`` was enough or ``within`` has to
follow. Bytes are hashed before they are scanned (see ``checked_files``): all codes before the first
flat scan, a list before its first scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import CheckedFile

_FAISS: Any = faiss  # its types leave some of it out
FAR = np.int32(1 << 30)  # farther than any code
_MOST_BY_LISTS = 0.5  # share of the codes; a scan of more of them by lists is slower than of all
_COUNTERS = 1 << 22  # numbers of eight bytes that counters of distances hold
_COUNTED_WIDTH, _COUNTED_K = 16, 512  # bytes, codes; wider codes and fewer of them: a heap
_HEADER = 1 << 16  # bytes; more than faiss's header of a file of lists, without its centroids

Bytes = NDArray[np.uint8]


class NearestCodes(NamedTuple):
    """The k nearest of the scanned codes for each of q queries, ascending by distance.

    Attributes:
        distances: int32 [q, k], in bits; FAR where fewer than k codes were scanned.
        numbers: int64 [q, k], row numbers into the distinct codes; -1 where the distance is FAR.
        reach: int32 [q], a code that was not returned is at least so far from the query.
    """

    distances: NDArray[np.int32]
    numbers: NDArray[np.int64]
    reach: NDArray[np.int32]


class Pairs(NamedTuple):
    """Pairs of a query and a distinct code near it, in any order.

    Attributes:
        queries: int64 [p], numbers of queries.
        numbers: int64 [p], row numbers into the distinct codes.
        distances: int32 [p], in bits.
    """

    queries: NDArray[np.int64]
    numbers: NDArray[np.int64]
    distances: NDArray[np.int32]

    def upto(self, last: NDArray[np.int32]) -> Pairs:
        """Return the pairs that are at most ``last`` bits apart; last: int32 [q], per query."""
        return self.take(self.distances <= last[self.queries])

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Pairs:
        """Return these pairs, in this order."""
        return Pairs(self.queries[chosen], self.numbers[chosen], self.distances[chosen])


class Scan(Protocol):
    """Finds distinct codes near queries.

    Attributes:
        exhaustive: whether every scan compares all codes. Then more codes of each query cost
            little, and one scan should return ties as well.
    """

    exhaustive: bool

    def nearest(self, queries: Bytes, k: int) -> NearestCodes:
        """Return the k nearest codes among those that are scanned.

        Args:
            queries: uint8 [q, w].
            k: codes of each query.
        """

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """Return all codes within a radius of each query.

        Args:
            queries: uint8 [q, w].
            radii: int32 [q], in bits; a negative one matches nothing.
        """


class Flat:
    """Scans all codes.

    Args:
        codes: uint8 [u, w], in memory or mapped.
        file: the file that holds them, hashed before the first scan; None for codes in memory.
    """

    exhaustive = True

    def __init__(self, codes: Bytes, file: CheckedFile | None = None) -> None:
        self.codes, self._file = codes, file

    def nearest(self, queries: Bytes, k: int) -> NearestCodes:
        """See ``Scan``."""
        codes = self.checked()
        k = min(k, len(codes))
        distances, numbers = _nearest_of_all(queries, codes, k)
        reach = np.full(len(queries), FAR) if k == len(codes) else distances[:, -1]
        return NearestCodes(distances, numbers, reach)

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """See ``Scan``."""
        codes = self.checked()

        def scanned(chosen: NDArray[np.int64], radius: int) -> Pairs:
            subset, result = queries[chosen], faiss.RangeSearchResult(len(chosen))
            pointers = (faiss.swig_ptr(subset), faiss.swig_ptr(codes))
            # faiss's binary range search returns distances below the radius, not at it: hence + 1
            _FAISS.hamming_range_search(
                *pointers, len(chosen), len(codes), radius + 1, codes.shape[1], result
            )
            limits = faiss.rev_swig_ptr(result.lims, len(chosen) + 1).copy()
            size = int(limits[-1])
            numbers = faiss.rev_swig_ptr(result.labels, size).copy()
            return _as_pairs(chosen, limits, numbers, faiss.rev_swig_ptr(result.distances, size))

        return _by_radius(radii, scanned)

    def checked(self) -> Bytes:
        """Return all codes, hashed."""
        if self._file is not None:
            self._file.check_all()
        return self.codes

    def codes_of(self, numbers: NDArray[np.int64]) -> Bytes:
        """Return codes by their numbers, hashed: uint8 [..., w]; numbers: int64 of any shape."""
        if self._file is not None:
            starts = numbers.ravel() * self.codes.shape[1]
            self._file.check(starts, starts + self.codes.shape[1])
        return self.codes[numbers]


def _nearest_of_all(
    queries: Bytes, codes: Bytes, k: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the k nearest codes of each query, by counters of distances where that is quicker.

    A counter for each distance takes a code at once, where a heap moves others. But a query then
    has k numbers for each distance in memory, so only some queries are scanned at once; and for
    wide codes, which have many distances, few places are quicker found by a heap.
    """
    if codes.shape[1] > _COUNTED_WIDTH and k < _COUNTED_K:
        distances, numbers = faiss.knn_hamming(queries, codes, k)
        return distances, numbers
    step = max(1, _COUNTERS // (k * (8 * codes.shape[1] + 1)))
    parts = [
        faiss.knn_hamming(queries[start : start + step], codes, k, variant="mc")
        for start in range(0, max(1, len(queries)), step)
    ]
    distances, numbers = map(np.concatenate, zip(*parts, strict=True))
    return distances, numbers


class Lists:
    """Scans l lists of codes, each with a certificate; see the module's docstring.

    Args:
        ivf: faiss's IndexBinaryIVF; its ids are row numbers into the distinct codes.
        radii: int32 [l], of the lists, in bits.
        probes: lists that ``nearest`` scans.
        flat: scans all codes, for queries where lists do not pay.
        file: the file that faiss has mapped, hashed list by list; None for an index in memory.
    """

    exhaustive = False

    def __init__(
        self,
        ivf: Any,
        radii: NDArray[np.int32],
        probes: int,
        flat: Flat,
        file: CheckedFile | None = None,
    ) -> None:
        self.ivf, self.radii, self.probes, self._flat = ivf, radii, probes, flat
        quantizer: Any = faiss.downcast_IndexBinary(ivf.quantizer)
        self.centroids = faiss.vector_to_array(quantizer.xb).reshape(len(radii), -1)
        self.sizes = np.array([ivf.invlists.list_size(i) for i in range(ivf.nlist)], np.int64)
        self._file = file
        # the lists are the last bytes of the file
        starts = (len(file.data) if file else 0) - np.cumsum(self._widths()[::-1])[::-1]
        self._byte_ranges = starts, starts + self._widths()
        self._using = threading.Lock()  # faiss's index holds the number of probes as state

    def nearest(self, queries: Bytes, k: int) -> NearestCodes:
        """See ``Scan``; all codes are scanned for a query whose lists hold fewer than k."""
        probed = faiss.knn_hamming(queries, self.centroids, min(self.probes, len(self.radii)))[1]
        bounds = self.bounds(queries)
        np.put_along_axis(bounds, probed, FAR, axis=1)
        self.check(probed)
        with self._using:
            self.ivf.nprobe = probed.shape[1]
            distances, numbers = self.ivf.search_preassigned(queries, k, probed, None)
        distances[numbers < 0] = FAR
        reach = np.minimum(distances[:, -1], bounds.min(axis=1))
        if (few := distances[:, -1] == FAR).any():
            by_scan = self._flat.nearest(queries[few], k)
            distances[few, : by_scan.numbers.shape[1]] = by_scan.distances
            numbers[few, : by_scan.numbers.shape[1]] = by_scan.numbers
            reach[few] = by_scan.reach
        return NearestCodes(distances, numbers, reach)

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """See ``Scan``."""
        selected = self.bounds(queries) <= radii[:, None]
        worth_it = self.worth_it(selected)

        def scanned(chosen: NDArray[np.int64], radius: int) -> Pairs:
            keys = list_keys(selected[chosen])
            self.check(keys)
            with self._using:
                self.ivf.nprobe = keys.shape[1]
                limits, distances, numbers = self.ivf.range_search_preassigned(
                    queries[chosen], radius + 1, keys, None
                )
            return _as_pairs(chosen, limits, numbers, distances)

        by_lists = _by_radius(np.where(worth_it, radii, -1), scanned)
        if worth_it.all():
            return by_lists
        rest = np.flatnonzero(~worth_it)
        by_scan = self._flat.within(queries[rest], radii[rest])
        return concat_pairs([by_lists, by_scan._replace(queries=rest[by_scan.queries])])

    def bounds(self, queries: Bytes) -> NDArray[np.int32]:
        """Return a lower bound of the distance of each list's members: int32 [q, l], in bits."""
        return hamming(queries, self.centroids) - self.radii

    def worth_it(self, selected: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell for which queries their selected lists are quicker to scan than all codes.

        Args:
            selected: bool [q, l], the lists that each query needs.

        Returns:
            bool [q].
        """
        return (selected @ self.sizes) <= _MOST_BY_LISTS * len(self._flat.codes)

    def check(self, keys: NDArray[np.int64]) -> None:
        """Hash the lists of these numbers before they are scanned; -1 is no list."""
        if self._file is not None:
            used = np.unique(keys[keys >= 0])
            starts, stops = self._byte_ranges
            self._file.check(starts[used], stops[used])

    def _widths(self) -> NDArray[np.int64]:
        return self.sizes * (self.ivf.code_size + 8)  # each member: its code and its number


def open_lists(files: Mapping[str, CheckedFile], probes: int, flat: Flat) -> Lists:
    """Map the lists that ``inverted_lists.write_lists`` wrote.

    Args:
        files: the index's files by name; ``lists`` and ``radii`` are read.
        probes: lists that ``Lists.nearest`` scans.
        flat: scans all codes.

    Raises:
        SchnRayError: the lists are damaged, or do not belong to these codes.
    """
    file, radii_file = files["lists"], files["radii"]
    radii_file.check_all()
    radii = radii_file.array(np.int32)
    file.check(0, min(len(file.data), _HEADER + len(radii) * (flat.codes.shape[1] + 16)))
    ivf: Any = faiss.read_index_binary(str(file.path), faiss.IO_FLAG_MMAP)
    shape = (ivf.d, ivf.nlist, ivf.ntotal)
    if shape != (8 * flat.codes.shape[1], len(radii), len(flat.codes)):
        raise SchnRayError(f"{file.path} is damaged: it holds other codes; make the index again")
    return Lists(ivf, np.asarray(radii), probes, flat, file)


def hamming(queries: Bytes, others: Bytes) -> NDArray[np.int32]:
    """Compute the distance of every query to every other code.

    Args:
        queries: uint8 [q, w].
        others: uint8 [n, w].

    Returns:
        int32 [q, n], in bits.

    Example:
        >>> hamming(np.array([[3]], np.uint8), np.array([[1], [3]], np.uint8)).tolist()
        [[1, 0]]
    """
    distances = np.zeros((len(queries), len(others)), np.int32)
    for word, other in zip(uint64_words(queries).T, uint64_words(others).T, strict=True):
        distances += np.bitwise_count(word[:, None] ^ other[None, :])
    return distances


def uint64_words(codes: Bytes) -> NDArray[np.uint64]:
    """Copy codes into words of eight bytes, padded with zeros: XOR and sorting are faster so.

    Args:
        codes: uint8 [n, w].

    Returns:
        [n, ceil(w / 8)].
    """
    wide = np.zeros((len(codes), -(-codes.shape[1] // 8)), np.uint64)
    wide.view(np.uint8)[:, : codes.shape[1]] = codes
    return wide


def list_keys(selected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of each query's selected lists, padded with -1 to the longest row.

    Args:
        selected: bool [q, l].
    """
    counts = selected.sum(axis=1)
    keys = np.full((len(selected), max(1, int(counts.max(initial=0)))), -1, np.int64)
    keys[np.arange(keys.shape[1]) < counts[:, None]] = np.nonzero(selected)[1]
    return keys


def _by_radius(radii: NDArray[np.int32], scan: Callable[[NDArray[np.int64], int], Pairs]) -> Pairs:
    """Scan queries of the same radius together; leave out those of a negative radius."""
    return concat_pairs(
        [scan(np.flatnonzero(radii == r), int(r)) for r in np.unique(radii[radii >= 0])]
    )


def concat_pairs(parts: list[Pairs]) -> Pairs:
    """Concatenate pairs.

    Args:
        parts: any number of them, also none.
    """
    empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))
    return Pairs(*map(np.concatenate, zip(empty, *parts, strict=True)))


def _as_pairs(
    queries: NDArray[np.int64],
    limits: NDArray[Any],
    numbers: NDArray[np.int64],
    distances: NDArray[Any],
) -> Pairs:
    ends = limits.astype(np.int64)
    lengths = ends[1:] - ends[:-1]
    repeated = np.repeat(queries, lengths)
    return Pairs(repeated, numbers, distances.astype(np.int32))
