"""Recall of the exact nearest neighbours, which needs no labels and is exact under ties.

For each query, the k exact neighbours are the k gallery rows with the highest cosine of the
unquantised features. Recall of k in R is the share of them that lie among the first R ranks by
Hamming distance; "recall@k" of the literature on nearest neighbours is k in k.

Both rankings have ties. A row's probability to be an exact neighbour is 1 above the k-th cosine,
and (places left) / (rows tied) at it; its probability to be among the first R is the same by
distance. The two orders are drawn independently, so the expected recall is the sum of products of
the two probabilities, over k: no order is drawn, and no sort decides.

Cosines are rounded to 9 decimals, so that equal features tie wherever they stand in a product of
matrices. A row of zeros has cosine 0 with every other.

Memory: blocks of queries against the gallery, a few arrays of 4 million cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.histograms import Counts, as_words

Floats = NDArray[np.float64]
Packed = NDArray[np.uint8]
_CELLS_AT_ONCE = 4_194_304  # cells of (query, gallery row)
_DECIMALS = 9


class RecallRanks(NamedTuple):
    """The two ranks of a recall.

    Attributes:
        k: exact neighbours of a query.
        first: ranks by Hamming distance among which they are looked for, R.
    """

    k: int
    first: int


@dataclass(frozen=True, eq=False)
class NeighbourHistograms:
    """Where the k exact neighbours of each of Q queries lie by Hamming distance.

    Attributes:
        all_rows: [Q, K+1], gallery rows at distance 0..K.
        nearest: [Q, K+1], expected number of exact neighbours among them; sums to k.
        k: exact neighbours of a query.
    """

    all_rows: Counts
    nearest: Floats
    k: int


def exact_neighbours(scores: Floats, k: int) -> csr_array:
    """Return each row's probability to be among the k with the highest scores [Q, G].

    Args:
        scores: [Q, G]; equal ones are ties.
        k: 1 to G.

    Raises:
        SchnRayError: a k outside 1..G.

    Example:
        >>> exact_neighbours(np.array([[0.9, 0.5, 0.5, 0.1]]), k=2).toarray().tolist()
        [[1.0, 0.5, 0.5, 0.0]]
    """
    rows = scores.shape[1]
    if not 1 <= k <= rows:
        raise SchnRayError(f"k = {k} neighbours of {rows} gallery rows; expected 1 to {rows}")
    lowest = np.partition(scores, rows - k, axis=1)[:, rows - k, None]
    above, tied = np.sum(scores > lowest, axis=1), np.sum(scores == lowest, axis=1)
    query, row = np.nonzero(scores >= lowest)
    in_tie = scores[query, row] == lowest[query, 0]
    probability = np.where(in_tie, ((k - above) / tied)[query], 1.0)
    return csr_array((probability, (query, row)), shape=scores.shape)


def neighbour_histograms(distances: Counts, neighbours: csr_array, bits: int) -> Floats:
    """Return the expected number of exact neighbours at each distance [Q, K+1].

    Args:
        distances: Hamming distances [Q, G].
        neighbours: see ``exact_neighbours`` [Q, G].
        bits: K.
    """
    query = np.repeat(np.arange(len(distances)), np.diff(neighbours.indptr))
    cells = query * (bits + 1) + distances[query, neighbours.indices]
    counts = np.bincount(cells, neighbours.data, minlength=len(distances) * (bits + 1))
    return counts.astype(np.float64).reshape(len(distances), bits + 1)


def neighbour_recall(h: NeighbourHistograms, first: int) -> Floats:
    """Return the expected share of the exact neighbours among the first ranks [Q].

    Args:
        h: histograms of Q queries.
        first: ranks, R; 1 or more. Beyond the gallery it is the whole gallery.

    Raises:
        SchnRayError: ``first`` is below 1.

    Example:
        >>> h = NeighbourHistograms(np.array([[1, 2]]), np.array([[0.0, 1.0]]), k=1)
        >>> neighbour_recall(h, first=2).tolist()  # one of the two rows at distance 1
        [0.5]
    """
    if first < 1:
        raise SchnRayError(f"the first {first} ranks; expected 1 or more")
    before = np.cumsum(h.all_rows, axis=1) - h.all_rows
    taken = np.clip(first - before, 0, h.all_rows)
    share = np.divide(taken, h.all_rows, out=np.zeros(taken.shape), where=h.all_rows > 0)
    return np.asarray((h.nearest * share).sum(axis=1) / h.k)


def neighbour_recalls(
    query_features: NDArray[np.floating],
    gallery_features: NDArray[np.floating],
    codes: Mapping[str, tuple[Packed, Packed]],
    bits: int,
    ranks: Sequence[RecallRanks],
) -> dict[str, dict[RecallRanks, Floats]]:
    """Measure codes of the same rows, block by block.

    Args:
        query_features: [Q, d].
        gallery_features: [G, d].
        codes: name -> packed codes of the queries [Q, ceil(K / 8)] and of the gallery.
        bits: K.
        ranks: which recalls; every k is at most G.

    Returns:
        name -> ranks -> recall of each query [Q].
    """
    values = {name: {at: np.zeros(len(query_features)) for at in ranks} for name in codes}
    words = {name: (as_words(query), as_words(rows)) for name, (query, rows) in codes.items()}
    for block, scores in _cosine_blocks(query_features, gallery_features):
        neighbours = {k: exact_neighbours(scores, k) for k in {at.k for at in ranks}}
        for name, (query, rows) in words.items():
            distances = _hamming(query[:, block], rows)
            all_rows = _rows_at(distances, bits)
            for k, probability in neighbours.items():
                nearest = neighbour_histograms(distances, probability, bits)
                h = NeighbourHistograms(all_rows, nearest, k)
                for at in ranks:
                    if at.k == k:
                        values[name][at][block] = neighbour_recall(h, at.first)
    return values


def _cosine_blocks(
    query_features: NDArray[np.floating], gallery_features: NDArray[np.floating]
) -> Iterator[tuple[slice, Floats]]:
    """Yield the cosines of consecutive queries with the whole gallery."""
    queries, gallery = _unit(query_features), _unit(gallery_features)
    step = max(1, _CELLS_AT_ONCE // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        block = slice(start, min(start + step, len(queries)))
        yield block, np.round(queries[block] @ gallery.T, _DECIMALS)


def _unit(features: NDArray[np.floating]) -> Floats:
    X = features.astype(np.float64)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.divide(X, length, out=np.zeros_like(X), where=length > 0)


def _hamming(queries: NDArray[np.uint64], rows: NDArray[np.uint64]) -> Counts:
    """Return distances [q, G] of codes that are columns of words, [W, q] and [W, G]."""
    distances = np.zeros((queries.shape[1], rows.shape[1]), np.int64)
    for query, row in zip(queries, rows, strict=True):
        distances += np.bitwise_count(query[:, None] ^ row)
    return distances


def _rows_at(distances: Counts, bits: int) -> Counts:
    cells = distances + (np.arange(len(distances)) * (bits + 1))[:, None]
    counts = np.bincount(cells.ravel(), minlength=len(distances) * (bits + 1))
    return counts.reshape(len(distances), bits + 1)
