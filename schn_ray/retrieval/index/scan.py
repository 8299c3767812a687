"""Scans over distinct codes: all of them, or only the lists that can hold what is asked for.

Lists are k-means clusters of the codes (faiss's inverted lists), each with its radius: the largest
distance of a member to the centroid. By the triangle inequality no member is nearer to a query
than d(query, centroid) - radius. So a scan of some lists says how far it *reaches*: every code
that it did not return is at least so far away. What is nearer than that is proven complete; for
the rest of the queries, exactly the lists that may hold more are scanned, or all codes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import Checked

_FAISS: Any = faiss  # its types leave some of it out
FAR = np.int32(1 << 30)  # farther than any code
_WORTH_LISTS = 0.5  # of the codes: to scan more of them by lists is slower than to scan all
_HEADER = 1 << 16  # more than faiss's header of a file of lists, without its centroids

Bytes = NDArray[np.uint8]


class Found(NamedTuple):
    """Distinct codes near q queries, ascending by distance; a place that is not filled is FAR.

    Attributes:
        distances: int32 [q, k].
        numbers: int64 [q, k], of the codes.
        reach: int32 [q], what is not here is at least so far.
    """

    distances: NDArray[np.int32]
    numbers: NDArray[np.int64]
    reach: NDArray[np.int32]


class Pairs(NamedTuple):
    """Queries and the distinct codes near them, in any order: three arrays [pairs]."""

    queries: NDArray[np.int64]
    numbers: NDArray[np.int64]
    distances: NDArray[np.int32]

    def upto(self, last: NDArray[np.int32]) -> Pairs:
        """Leave out what is farther from its query than ``last``, int32 [q]."""
        keep = self.distances <= last[self.queries]
        return Pairs(self.queries[keep], self.numbers[keep], self.distances[keep])


class Scan(Protocol):
    """How codes are looked through."""

    spare: bool

    def nearest(self, queries: Bytes, k: int) -> Found:
        """Return the k nearest of those codes that were looked at.

        Args:
            queries: uint8 [q, w].
            k: codes of each query.
        """

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """Return all codes at most so many bits from each query; radii int32 [q]."""


class Flat:
    """Every code is looked at, so that one scan had better return ties as well: ``spare``.

    Args:
        codes: uint8 [u, w], perhaps mapped.
        file: what holds them, to be checked before the first scan.
    """

    spare = True

    def __init__(self, codes: Bytes, file: Checked | None = None) -> None:
        self.codes, self._file = codes, file

    def nearest(self, queries: Bytes, k: int) -> Found:
        """See ``Scan``."""
        codes = self._checked()
        k = min(k, len(codes))
        distances, numbers = faiss.knn_hamming(queries, codes, k)
        all_seen = k == len(codes)
        reach = np.full(len(queries), FAR) if all_seen else distances[:, -1]
        return Found(distances, numbers, reach)

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """See ``Scan``."""
        codes = self._checked()

        def scanned(some: NDArray[np.int64], radius: int) -> Pairs:
            asked, result = queries[some], faiss.RangeSearchResult(len(some))
            pointers = (faiss.swig_ptr(asked), faiss.swig_ptr(codes))
            # faiss leaves out what lies exactly at the radius of a binary range search
            _FAISS.hamming_range_search(
                *pointers, len(some), len(codes), radius + 1, codes.shape[1], result
            )
            limits = faiss.rev_swig_ptr(result.lims, len(some) + 1).copy()
            size = int(limits[-1])
            numbers = faiss.rev_swig_ptr(result.labels, size).copy()
            return _as_pairs(some, limits, numbers, faiss.rev_swig_ptr(result.distances, size))

        return _by_radius(radii, scanned)

    def _checked(self) -> Bytes:
        if self._file is not None:
            self._file.touch_all()
        return self.codes


class Lists:
    """Lists of codes with a certificate; see the module.

    Args:
        ivf: faiss's IndexBinaryIVF; its ids are numbers of codes.
        radii: int32 [l].
        probes: lists to look at first.
        flat: all codes, for queries that lists do not help.
        file: that faiss has mapped, to be checked list by list; None for an index in memory.
    """

    spare = False

    def __init__(
        self,
        ivf: Any,
        radii: NDArray[np.int32],
        probes: int,
        flat: Flat,
        file: Checked | None = None,
    ) -> None:
        self.ivf, self.radii, self.probes, self._flat = ivf, radii, probes, flat
        quantizer: Any = faiss.downcast_IndexBinary(ivf.quantizer)
        self.centroids = faiss.vector_to_array(quantizer.xb).reshape(len(radii), -1)
        self.sizes = np.array([ivf.invlists.list_size(i) for i in range(ivf.nlist)], np.int64)
        self._file = file
        ends = (len(file.data) if file else 0) - np.cumsum(self._widths()[::-1])[::-1]
        self._places = ends, ends + self._widths()
        self._using = threading.Lock()  # how many lists to probe is a state of faiss's index

    def nearest(self, queries: Bytes, k: int) -> Found:
        """See ``Scan``; a query for which too few codes were near goes through all of them."""
        probed = faiss.knn_hamming(queries, self.centroids, min(self.probes, len(self.radii)))[1]
        bounds = self.bounds(queries)
        np.put_along_axis(bounds, probed, FAR, axis=1)
        self._touch(probed)
        with self._using:
            self.ivf.nprobe = probed.shape[1]
            distances, numbers = self.ivf.search_preassigned(queries, k, probed, None)
        distances[numbers < 0] = FAR
        reach = np.minimum(distances[:, -1], bounds.min(axis=1))
        if (few := distances[:, -1] == FAR).any():
            found = self._flat.nearest(queries[few], k)
            distances[few, : found.numbers.shape[1]] = found.distances
            numbers[few, : found.numbers.shape[1]] = found.numbers
            reach[few] = found.reach
        return Found(distances, numbers, reach)

    def within(self, queries: Bytes, radii: NDArray[np.int32]) -> Pairs:
        """See ``Scan``."""
        wanted = self.bounds(queries) <= radii[:, None]
        helped = self.helped(wanted)

        def scanned(some: NDArray[np.int64], radius: int) -> Pairs:
            keys = _keys(wanted[some])
            self._touch(keys)
            with self._using:
                self.ivf.nprobe = keys.shape[1]
                limits, distances, numbers = self.ivf.range_search_preassigned(
                    queries[some], radius + 1, keys, None
                )
            return _as_pairs(some, limits, numbers, distances)

        by_lists = _by_radius(np.where(helped, radii, -1), scanned)
        if helped.all():
            return by_lists
        rest = np.flatnonzero(~helped)
        by_scan = self._flat.within(queries[rest], radii[rest])
        return joined([by_lists, by_scan._replace(queries=rest[by_scan.queries])])

    def bounds(self, queries: Bytes) -> NDArray[np.int32]:
        """Return the least distance that a member of each list may have: int32 [q, l]."""
        return hamming(queries, self.centroids) - self.radii

    def helped(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell for which queries a scan of their wanted lists [q, l] is worth it: bool [q]."""
        return (wanted @ self.sizes) <= _WORTH_LISTS * len(self._flat.codes)

    def _touch(self, keys: NDArray[np.int64]) -> None:
        if self._file is not None:
            used = np.unique(keys[keys >= 0])
            self._file.touch(self._places[0][used], self._places[1][used])

    def _widths(self) -> NDArray[np.int64]:
        return self.sizes * (self.ivf.code_size + 8)  # a code and its number


def open_lists(files: Mapping[str, Checked], probes: int, flat: Flat) -> Lists:
    """Map the lists that ``write_lists`` wrote.

    Raises:
        SchnRayError: they are damaged, or not of these codes.
    """
    file, radii_file = files["lists"], files["radii"]
    radii_file.touch_all()
    radii = radii_file.array(np.int32)
    file.touch(0, min(len(file.data), _HEADER + len(radii) * (flat.codes.shape[1] + 16)))
    ivf: Any = faiss.read_index_binary(str(file.path), faiss.IO_FLAG_MMAP)
    shape = (ivf.d, ivf.nlist, ivf.ntotal)
    if shape != (8 * flat.codes.shape[1], len(radii), len(flat.codes)):
        raise SchnRayError(f"{file.path} is damaged: it is of other codes; make the index again")
    return Lists(ivf, np.asarray(radii), probes, flat, file)


def hamming(queries: Bytes, others: Bytes) -> NDArray[np.int32]:
    """Return the distances of every query [q, w] to every other code [n, w]: int32 [q, n].

    >>> hamming(np.array([[3]], np.uint8), np.array([[1], [3]], np.uint8)).tolist()
    [[1, 0]]
    """
    distances = np.zeros((len(queries), len(others)), np.int32)
    for word, other in zip(words(queries).T, words(others).T, strict=True):
        distances += np.bitwise_count(word[:, None] ^ other[None, :])
    return distances


def words(codes: Bytes) -> NDArray[np.uint64]:
    """Return codes [n, w] as numbers of eight bytes [n, ceil(w / 8)], zeros behind."""
    wide = np.zeros((len(codes), -(-codes.shape[1] // 8)), np.uint64)
    wide.view(np.uint8)[:, : codes.shape[1]] = codes
    return wide


def _keys(wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of the wanted lists of each query, -1 where another has more of them."""
    counts = wanted.sum(axis=1)
    keys = np.full((len(wanted), max(1, int(counts.max(initial=0)))), -1, np.int64)
    keys[np.arange(keys.shape[1]) < counts[:, None]] = np.nonzero(wanted)[1]
    return keys


def _by_radius(radii: NDArray[np.int32], scan: Callable[[NDArray[np.int64], int], Pairs]) -> Pairs:
    """Scan queries of the same radius together; those of a negative one not at all."""
    several = [scan(np.flatnonzero(radii == r), int(r)) for r in np.unique(radii[radii >= 0])]
    return joined(several)


def joined(several: list[Pairs]) -> Pairs:
    """Put pairs after each other."""
    empty = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))
    return Pairs(*map(np.concatenate, zip(empty, *several, strict=True)))


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
