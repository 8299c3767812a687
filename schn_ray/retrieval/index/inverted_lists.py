"""Build inverted lists over many distinct codes, and test whether they make searches quicker.

``write_lists`` clusters the codes, measures the radius of each list (the certificate that
``scan.Lists`` rests on) and runs a self-test on queries near the gallery's own rows. Lists are
written only if the test shows that they pay. Results are exact with lists and without.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter
from schn_ray.retrieval.index.scan import FAR, Bytes, Flat, Lists, hamming

FEWEST = 1 << 14  # codes; a flat scan of fewer is quick
_TEST_QUERIES = 500
_MATCHES = 10  # k of the self-test
_PROBES = (1, 2, 4, 8, 16, 32)
_MOST_LOOKED_AT = 1 / 3  # share of the codes; lists that look at more do not pay
_ADDED_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Trial:
    """Result of the self-test.

    Attributes:
        probes: lists that a search scans first.
        certified: share of the queries that lists alone answered completely, without a full scan.
        looked_at: share of the codes that a query is compared with, on average.
    """

    probes: int
    certified: float
    looked_at: float


def write_lists(folder: Path, codes: Bytes, counts: NDArray[np.int64]) -> Trial | None:
    """Cluster distinct codes and write the files ``lists`` and ``radii``, if they pay.

    Args:
        folder: folder to write to.
        codes: uint8 [u, w], ascending, so that equal content gives equal files.
        counts: int64 [u], rows that have each code.

    Returns:
        None if nothing was written: few codes, or codes that do not cluster.
    """
    chosen = lists_that_pay(codes, counts)
    if chosen is None:
        return None
    lists, trial = chosen
    # by way of our file: faiss's own would keep quiet about a disk that is full when it is closed
    with FileWriter(folder / "lists") as file:
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index_binary(lists.ivf, writer)
    with FileWriter(folder / "radii") as file:
        file.write(lists.radii.tobytes())
    return trial


def lists_that_pay(codes: Bytes, counts: NDArray[np.int64]) -> tuple[Lists, Trial] | None:
    """Cluster distinct codes into lists, in memory, and test them.

    Args:
        codes: uint8 [u, w].
        counts: int64 [u], rows that have each code.

    Returns:
        The lists and their test; None for few codes, or codes that do not cluster.
    """
    if len(codes) < FEWEST:
        return None
    lists = _cluster(codes)
    trial = try_lists(lists, codes, counts)
    return None if trial.looked_at > _MOST_LOOKED_AT else (lists, trial)


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
    """Set ``lists.probes`` to the number that makes queries look at the fewest codes.

    The queries are codes of the gallery's own rows with one bit in 32 flipped.

    Args:
        lists: the lists over these codes.
        codes: uint8 [u, w], distinct.
        counts: int64 [u], rows that have each code.

    Returns:
        The test's result with that number of probes.
    """
    queries = _queries(codes, counts)
    bounds = lists.bounds(queries)
    trials = []
    for probes in _PROBES:
        lists.probes = probes
        near = lists.nearest(queries, _MATCHES)
        kth = kth_distance(near.distances, np.where(near.numbers < 0, 0, counts[near.numbers]))
        selected = bounds <= kth[:, None]
        first = np.sort(hamming(queries, lists.centroids), axis=1)[:, :probes][:, -1:]
        first = (hamming(queries, lists.centroids) <= first) @ lists.sizes
        certified = lists.worth_it(selected)
        then = np.where(certified, selected @ lists.sizes, len(codes))
        looked_at = float((first + then).mean()) / len(codes)
        trials.append(Trial(probes, float(certified.mean()), looked_at))
    best = min(trials, key=lambda trial: trial.looked_at)
    lists.probes = best.probes
    return best


def kth_distance(
    distances: NDArray[np.int32], counts: NDArray[np.int64], k: int = _MATCHES
) -> NDArray[np.int32]:
    """Return the distance of the k-th nearest row of each query.

    Args:
        distances: int32 [q, m], of distinct codes, in bits, ascending.
        counts: int64 [q, m], rows that have each of these codes.
        k: at least 1.

    Returns:
        int32 [q]; FAR where the codes have fewer than k rows.
    """
    covered = np.cumsum(counts, axis=1) >= k
    column = np.argmax(covered, axis=1)  # the first that covers k rows
    each = np.arange(len(distances))
    kth: NDArray[np.int32] = np.where(covered[each, column], distances[each, column], FAR)
    return kth


def _queries(codes: Bytes, counts: NDArray[np.int64]) -> Bytes:
    draws = np.random.default_rng(0)
    ends = np.cumsum(counts)
    rows = draws.integers(0, ends[-1], _TEST_QUERIES)
    own = codes[np.searchsorted(ends, rows, side="right")]
    flips = draws.random((_TEST_QUERIES, 8 * codes.shape[1])) < 1 / 32
    return np.ascontiguousarray(own ^ np.packbits(flips, axis=1))
