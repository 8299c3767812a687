"""Scans over distinct codes: all of them, or only the lists that can hold what is asked for.

Lists are k-means clusters of the codes (faiss's inverted lists), each with its radius: the largest
distance of a member to the centroid. By the triangle inequality no member is nearer to a query
than d(query, centroid) - radius. So a scan of some lists says how far it *reaches*: every code
that it did not return is at least so far away. What is nearer than that is proven complete; for
the rest of the queries, exactly the lists that may hold more are scanned, or all codes.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.errors import SchnRayError
from schn_ray.index.checked import Checked

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


class Scan(Protocol):
    """How codes are looked through."""

    def nearest(self, queries: Bytes, k: int, upto: NDArray[np.int32] | None = None) -> Found:
        """Return the k nearest of those that were looked at.

        Args:
            queries: uint8 [q, w].
            k: codes of each query.
            upto: int32 [q], look wherever there may be codes at most so far; None: where it is
                most likely that the nearest are.
        """

    def within(self, queries: Bytes, radius: int) -> Pairs:
        """Return all codes at most ``radius`` bits away."""


class Flat:
    """Every code is looked at.

    Args:
        codes: uint8 [u, w], perhaps mapped.
        file: what holds them, to be checked before the first scan.
    """

    def __init__(self, codes: Bytes, file: Checked | None = None) -> None:
        self.codes, self._file = codes, file

    def nearest(self, queries: Bytes, k: int, upto: NDArray[np.int32] | None = None) -> Found:
        """See ``Scan``."""
        codes = self._checked()
        k = min(k, len(codes))
        distances, numbers = faiss.knn_hamming(queries, codes, k)
        all_seen = k == len(codes)
        reach = np.full(len(queries), FAR) if all_seen else distances[:, -1]
        return Found(distances, numbers, reach)

    def within(self, queries: Bytes, radius: int) -> Pairs:
        """See ``Scan``."""
        codes = self._checked()
        result = faiss.RangeSearchResult(len(queries))
        pointers = (faiss.swig_ptr(queries), faiss.swig_ptr(codes))
        # faiss leaves out what lies exactly at the radius of a binary range search
        faiss.hamming_range_search(
            *pointers, len(queries), len(codes), radius + 1, codes.shape[1], result
        )
        limits = faiss.rev_swig_ptr(result.lims, len(queries) + 1).copy()
        size = int(limits[-1])
        numbers = faiss.rev_swig_ptr(result.labels, size).copy()
        distances = faiss.rev_swig_ptr(result.distances, size).copy()
        return _as_pairs(limits, numbers, distances)

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

    def __init__(
        self,
        ivf: Any,
        radii: NDArray[np.int32],
        probes: int,
        flat: Flat,
        file: Checked | None = None,
    ) -> None:
        self.ivf, self.radii, self.probes, self._flat = ivf, radii, probes, flat
        quantizer = faiss.downcast_IndexBinary(ivf.quantizer)
        self.centroids = faiss.vector_to_array(quantizer.xb).reshape(len(radii), -1)
        self.sizes = np.array([ivf.invlists.list_size(i) for i in range(ivf.nlist)], np.int64)
        self._file = file
        ends = (len(file.data) if file else 0) - np.cumsum(self._widths()[::-1])[::-1]
        self._places = ends, ends + self._widths()
        self._using = threading.Lock()  # how many lists to probe is a state of faiss's index

    def nearest(self, queries: Bytes, k: int, upto: NDArray[np.int32] | None = None) -> Found:
        """See ``Scan``."""
        bounds = hamming(queries, self.centroids) - self.radii
        if upto is None:
            return self._probe(queries, k, self.first_lists(queries), bounds)
        wanted = bounds <= upto[:, None]
        by_lists = (wanted @ self.sizes) <= _WORTH_LISTS * len(self._flat.codes)
        found = Found(
            np.full((len(queries), k), FAR, np.int32),
            np.full((len(queries), k), -1, np.int64),
            np.full(len(queries), FAR, np.int32),
        )
        for chosen, scan in (
            (by_lists, lambda q: self._probe(queries[q], k, _keys(wanted[q]), bounds[q])),
            (~by_lists, lambda q: self._flat.nearest(queries[q], k)),
        ):
            if chosen.any():
                distances, numbers, reach = scan(chosen)
                found.distances[chosen, : distances.shape[1]] = distances
                found.numbers[chosen, : numbers.shape[1]] = numbers
                found.reach[chosen] = reach
        return found

    def within(self, queries: Bytes, radius: int) -> Pairs:
        """See ``Scan``."""
        wanted = hamming(queries, self.centroids) - self.radii <= radius
        if (wanted @ self.sizes).mean() > _WORTH_LISTS * len(self._flat.codes):
            return self._flat.within(queries, radius)
        keys = _keys(wanted)
        self._touch(keys)
        with self._using:
            self.ivf.nprobe = keys.shape[1]
            limits, distances, numbers = self.ivf.range_search_preassigned(
                queries, radius + 1, keys, None
            )
        return _as_pairs(limits, numbers, distances)

    def first_lists(self, queries: Bytes) -> NDArray[np.int64]:
        """Return the lists to look at first: int64 [q, probes]."""
        probes = min(self.probes, len(self.radii))
        lists: NDArray[np.int64] = faiss.knn_hamming(queries, self.centroids, probes)[1]
        return lists

    def _probe(
        self, queries: Bytes, k: int, keys: NDArray[np.int64], bounds: NDArray[np.int32]
    ) -> Found:
        self._touch(keys)
        with self._using:
            self.ivf.nprobe = keys.shape[1]
            distances, numbers = self.ivf.search_preassigned(queries, k, keys, None)
        distances[numbers < 0] = FAR
        rest = np.concatenate([bounds, np.full((len(queries), 1), FAR)], axis=1)
        np.put_along_axis(rest, keys, FAR, axis=1)  # -1, no list, is the column at the end
        return Found(distances, numbers, np.minimum(distances[:, -1], rest.min(axis=1)))

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
    ivf = faiss.read_index_binary(str(file.path), faiss.IO_FLAG_MMAP)
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


def _as_pairs(
    limits: NDArray[Any], numbers: NDArray[np.int64], distances: NDArray[Any]
) -> Pairs:
    queries = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
    return Pairs(queries, numbers, distances.astype(np.int32))
