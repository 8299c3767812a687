"""Lists for many codes: clustered, each with its radius, and tried before they are believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.index.scan import FAR, Bytes, Flat, Lists, hamming

FEWEST = 1 << 17  # codes; fewer are looked through at once
_TRIED = 500  # queries of the self-test
_MATCHES = 10  # that each of them asks for
_PROBES = (1, 2, 4, 8, 16, 32)
_WORTH = 1 / 3  # of the codes looked at, on average: more, and lists are not worth it
_ADDED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Trial:
    """What the self-test found.

    Attributes:
        probes: lists to look at first.
        certified: share of the queries whose answers lists proved complete, without a full scan.
        looked_at: share of the codes that an answer looks at, on average.
    """

    probes: int
    certified: float
    looked_at: float


def write_lists(folder: Path, codes: Bytes, counts: NDArray[np.int64]) -> Trial | None:
    """Cluster distinct codes [u, w] and write ``lists`` and ``radii``, if they pay.

    Args:
        folder: to write to.
        codes: ascending, so that equal content gives equal files.
        counts: [u], rows that have each code.

    Returns:
        None where nothing was written: few codes, or codes that no cluster describes.
    """
    if len(codes) < FEWEST:
        return None
    lists = _cluster(codes)
    trial = try_lists(lists, codes, counts)
    if trial.looked_at > _WORTH:
        return None
    faiss.write_index_binary(lists.ivf, str(folder / "lists"))
    lists.radii.tofile(folder / "radii")
    return trial


def _cluster(codes: Bytes) -> Lists:
    bits = 8 * codes.shape[1]
    count = 1 << round(np.log2(len(codes) ** 0.5 / 2))
    ivf: Any = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, count)
    ivf.cp.niter, ivf.cp.max_points_per_centroid, ivf.cp.seed = 8, 64, 0
    ivf.train(codes)
    radii = np.zeros(count, np.int32)
    for start in range(0, len(codes), _ADDED_AT_ONCE):
        part = np.ascontiguousarray(codes[start : start + _ADDED_AT_ONCE])
        distances, lists = ivf.quantizer.search(part, 1)
        np.maximum.at(radii, lists[:, 0], distances[:, 0])
        numbers = np.arange(start, start + len(part))
        keys = np.ascontiguousarray(lists[:, 0], np.int64)
        ivf.add_core(len(part), *(faiss.swig_ptr(array) for array in (part, numbers, keys)))
    return Lists(ivf, radii, _PROBES[0], Flat(codes))


def try_lists(lists: Lists, codes: Bytes, counts: NDArray[np.int64]) -> Trial:
    """Choose the number of probes that makes queries look at the fewest codes.

    The queries are codes of the gallery's own rows, one bit in 32 flipped.
    """
    queries = _queries(codes, counts)
    bounds = lists.bounds(queries)
    trials = []
    for probes in _PROBES:
        lists.probes = probes
        found = lists.nearest(queries, _MATCHES)
        kth = kth_distance(found.distances, np.where(found.numbers < 0, 0, counts[found.numbers]))
        wanted = bounds <= kth[:, None]
        first = np.sort(hamming(queries, lists.centroids), axis=1)[:, :probes][:, -1:]
        first = (hamming(queries, lists.centroids) <= first) @ lists.sizes
        certified = lists.helped(wanted)
        then = np.where(certified, wanted @ lists.sizes, len(codes))
        looked_at = float((first + then).mean()) / len(codes)
        trials.append(Trial(probes, float(certified.mean()), looked_at))
    best = min(trials, key=lambda trial: trial.looked_at)
    lists.probes = best.probes
    return best


def kth_distance(
    distances: NDArray[np.int32], counts: NDArray[np.int64], k: int = _MATCHES
) -> NDArray[np.int32]:
    """Return the distance of the k-th row, FAR where fewer rows than k were found.

    Args:
        distances: int32 [q, m], of distinct codes, ascending.
        counts: int64 [q, m], rows that have each.
        k: at least 1.
    """
    covered = np.cumsum(counts, axis=1) >= k
    place = np.argmax(covered, axis=1)
    each = np.arange(len(distances))
    kth: NDArray[np.int32] = np.where(covered[each, place], distances[each, place], FAR)
    return kth


def _queries(codes: Bytes, counts: NDArray[np.int64]) -> Bytes:
    draws = np.random.default_rng(0)
    ends = np.cumsum(counts)
    rows = draws.integers(0, ends[-1], _TRIED)
    own = codes[np.searchsorted(ends, rows, side="right")]
    flips = draws.random((_TRIED, 8 * codes.shape[1])) < 1 / 32
    return np.ascontiguousarray(own ^ np.packbits(flips, axis=1))
