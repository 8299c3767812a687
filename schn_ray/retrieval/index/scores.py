"""Rank rows by the score of a query's relaxed output q and their codes b, exactly, with a proof.

The score is q . b, b in {-1, +1}. Let the loss L(b) be the sum of |q_i| over the bits in which b
differs from sign(q); then the score is |q|_1 - 2 L(b). A code at Hamming distance d from sign(q)
differs in d bits, and loses at least their smallest:

    L(b) >= S_d, the sum of the d smallest |q_i|, so q . b <= |q|_1 - 2 S_d.

So ``ScoreScan`` takes codes by growing distance: those within a radius r, in the lists that may
have one (``Lists.bounds``). It is done when the k-th row loses less than S_{r+1}, the proof that no
code beyond r is as good. Otherwise r grows to the last distance whose S is not above that loss.
Without lists, all codes are scanned.

Nothing is stored for this. The codes are scanned as they lie in the lists by faiss's product
quantiser, with the 256 sign patterns of a byte as its centroids; its "polysemous" filter is the
radius. It adds in float32, and so it only proposes codes: ``ScoreScan._reach`` allows for its
error. ``Weights`` turns |q_i| into whole numbers, whose sums are exact in any order, so that equal
scores are equal, whichever lists they came from.
"""

from __future__ import annotations

import functools
import itertools
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.matches import NamedRows, Scored, Within, none_scored
from schn_ray.retrieval.index.postings import Postings
from schn_ray.retrieval.index.scan import Bytes, Flat, Lists, Scan, list_keys

Floats = NDArray[np.float64]
_FIRST_QUERIES = 32  # of which the first radii of the others are learned
_SPARE = 2  # codes beyond k of a first scan, so that a tie with the k-th row shows
_GROWTH = 8  # of the codes to scan for, where the ties were more than that
_CELLS = 1 << 21  # of an array per block of queries
_NUMBERS = 1 << 18  # of float64: an array that stays in the processor's cache
_WHOLE_BITS = 51  # of a sum of weights; float64 holds whole numbers of 53
_EPSILON = 2.0**-24  # of float32
_NEXT_TO_ZERO = 1e-4  # of the largest |q_i|; float32 may lose less of the distance of two bytes


class SearchedRows(NamedRows, Protocol):
    """The rows of an index, searched by distance."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows."""

    def within(self, codes: Bytes, radius: int) -> Within:
        """Return all rows within a radius of each code."""


class ScoredCodes(NamedTuple):
    """Pairs of a query and a distinct code: those of the k best rows, and all that tie with them.

    Attributes:
        queries: int64 [p], numbers of queries.
        numbers: int64 [p], row numbers into the distinct codes.
        losses: float64 [p], whole numbers, see ``Weights``.
    """

    queries: NDArray[np.int64]
    numbers: NDArray[np.int64]
    losses: Floats


@dataclass(frozen=True, eq=False)
class Weights:
    """|q_i| of q queries as whole numbers, so scaled that every sum of them is exact in float64.

    A |q_i| is rounded to 2^-40 of the largest, or finer.

    Attributes:
        codes: uint8 [q, w], sign(q), packed.
        whole: float64 [q, 8 w], |q_i| * 2^exponent, rounded; 0 for padding bits.
        exponents: int [q].
        totals: float64 [q], sums of ``whole``.
    """

    codes: Bytes
    whole: Floats
    exponents: NDArray[np.int64]
    totals: Floats

    def losses(self, codes: Bytes) -> Floats:
        """Return the loss of codes uint8 [q, m, w], m a query: float64 [q, m], exact."""
        queries, m, width = codes.shape
        losses = np.empty((queries, m))
        columns = max(1, min(m, _NUMBERS // (8 * width)))
        rows = max(1, _NUMBERS // (8 * width * columns))
        for row, column in itertools.product(range(0, queries, rows), range(0, m, columns)):
            block = slice(row, row + rows), slice(column, column + columns)
            different = codes[block] ^ self.codes[block[0], None]
            bits = np.unpackbits(different, axis=2, bitorder="little").astype(np.float64)
            losses[block] = (bits @ self.whole[block[0], :, None])[:, :, 0]
        return losses

    def least(self, bits: int) -> Floats:
        """Return S_0 to S_bits, and inf: the least loss at each distance, float64 [q, bits + 2]."""
        least = np.zeros((len(self.whole), bits + 2))
        np.cumsum(np.sort(self.whole[:, :bits], axis=1), axis=1, out=least[:, 1:-1])
        least[:, -1] = np.inf
        return least

    def scores(self, queries: NDArray[np.int64], losses: Floats) -> Floats:
        """Return |q|_1 - 2 L of losses [p] of these queries [p]."""
        scores: Floats = np.ldexp(self.totals[queries] - 2 * losses, -self.exponents[queries])
        return scores

    def __getitem__(self, chosen: NDArray[np.int64]) -> Weights:
        """Return the weights of chosen queries."""
        return Weights(
            self.codes[chosen], self.whole[chosen], self.exponents[chosen], self.totals[chosen]
        )


def weights_of(relaxed: NDArray[np.floating]) -> Weights:
    """Return the codes and weights of relaxed outputs.

    Args:
        relaxed: [q, K], finite; 0 has the sign +1.

    Raises:
        SchnRayError: a number is NaN or infinite.

    Example:
        >>> weights = weights_of(np.array([[0.5, -0.25, 2.0]]))
        >>> weights.codes.tolist(), (weights.whole[0, :3] / weights.whole[0, 1]).tolist()
        ([[5]], [2.0, 1.0, 8.0])
    """
    bad = ~np.isfinite(relaxed).all(axis=1)
    if bad.any():
        raise SchnRayError(
            f"the relaxed output of query {int(bad.argmax())} has numbers that are NaN or infinite"
        )
    queries, bits = relaxed.shape
    magnitudes = np.zeros((queries, -(-bits // 8) * 8))
    magnitudes[:, :bits] = np.abs(relaxed)
    _, largest = np.frexp(magnitudes.max(axis=1, initial=0))
    exponents = _WHOLE_BITS - int(np.ceil(np.log2(max(2, bits)))) - largest.astype(np.int64)
    whole = np.rint(np.ldexp(magnitudes, exponents[:, None]))
    codes = np.packbits(relaxed >= 0, axis=1, bitorder="little")
    return Weights(codes, whole, exponents, whole.sum(axis=1))


class ScoreScan:
    """Ranks the rows of an index by score; threads may share it.

    Args:
        scan: finds distinct codes: all of them, or by lists.
        flat: has all distinct codes.
        postings: the rows of each code.
        bits: of a code, K.
    """

    def __init__(self, scan: Scan, flat: Flat, postings: Postings, bits: int) -> None:
        self._flat, self._postings, self._bits = flat, postings, bits
        width = flat.codes.shape[1]
        self._lists = scan if isinstance(scan, Lists) else None
        self._quantiser: Any = _sign_quantiser(width)
        self._using = threading.Lock()  # faiss's index holds the number of probes as state
        if self._lists is not None:
            self._ivf = _scored_lists(self._lists, self._quantiser)

    def search(
        self, relaxed: NDArray[np.floating], k: int | None, radius: int | None, rows: SearchedRows
    ) -> Scored:
        """See ``Index.scored``; ``rows`` is the index."""
        if relaxed.ndim != 2 or relaxed.shape[1] != self._bits:
            raise SchnRayError(
                f"the relaxed outputs have the shape {relaxed.shape}; the index holds {self._bits} "
                f"bits and expects [n, {self._bits}]. They must come from the index's model"
            )
        if (k is None and radius is None) or (k is not None and k < 1):
            raise SchnRayError(f"k is {k}; name a k of 1 or more, a radius, or both")
        weights = weights_of(relaxed)
        if not len(rows):
            return none_scored(len(relaxed), rows, radius)
        if radius is not None:
            return _within(weights, k, radius, rows)
        vectors = _scaled(relaxed, self._quantiser.d)
        return self._best_rows(weights, vectors, min(k or len(rows), len(rows)), rows)

    def _best_rows(
        self, weights: Weights, vectors: NDArray[np.float32], k: int, names: NamedRows
    ) -> Scored:
        scored = Scored(
            np.arange(len(vectors) + 1) * k,
            np.empty(len(vectors) * k, np.int64),
            np.empty(len(vectors) * k),
            np.empty(len(vectors) * k, np.int32),
            np.empty(len(vectors), np.int64),
            None,
            names,
        )
        share, start, at_once = 1.0, 0, min(_FIRST_QUERIES, self._queries_at_once(k))
        while start < len(vectors):
            block = np.arange(start, min(start + at_once, len(vectors)))
            part = weights[block]
            least, guess = part.least(self._bits), self._centroid_losses(part)
            radii = np.minimum((least <= share * guess[:, None]).sum(axis=1) - 1, self._bits)
            pairs = self._best(part, vectors[block], k, least, radii)
            self._fill(scored, block, part, pairs, k)
            start, at_once = start + at_once, self._queries_at_once(k)
            kth = np.zeros(len(block))
            np.maximum.at(kth, pairs.queries, pairs.losses)
            if self._lists is not None and (guess > 0).any():
                # most of the next queries are done with a radius of so much, and few codes more
                share = float(np.quantile(kth[guess > 0] / guess[guess > 0], 0.9))
        return scored

    def _queries_at_once(self, m: int) -> int:
        lists = 0 if self._lists is None else len(self._lists.radii)
        cells = max(2 * m, lists)
        return max(1, min(1024, _CELLS // cells))

    def _best(
        self,
        weights: Weights,
        vectors: NDArray[np.float32],
        k: int,
        least: Floats,
        radii: NDArray[np.int64],
    ) -> ScoredCodes:
        """Scan farther, and for more codes, until no other code can be among the k best rows."""
        codes = len(self._flat.codes)
        m = min(k + _SPARE, codes)
        parts, pending = list[ScoredCodes](), np.arange(len(vectors))
        while len(pending):
            rest, short = [], False
            at_once = self._queries_at_once(m)
            for chosen in np.split(pending, range(at_once, len(pending), at_once)):
                part = weights[chosen]
                numbers, scores = self._scan(part, vectors[chosen], m, radii[chosen])
                losses = self._exact(part, numbers)
                kth = self._kth(numbers, losses, k)
                # the certificate: what codes lose at least that are farther, or were not returned
                beyond = least[chosen, radii[chosen] + 1]
                reach = self._reach(part, numbers, scores, m)
                enough = (kth < reach) | np.isinf(reach)
                complete = enough & (kth < beyond)
                close = (losses <= kth[:, None]) & (numbers >= 0) & complete[:, None]
                query = chosen[np.nonzero(close)[0]]
                parts.append(ScoredCodes(query, numbers[close], losses[close]))
                radii[chosen] = np.where(
                    np.isinf(kth),
                    np.minimum(radii[chosen] + 1 + radii[chosen] // 4, self._bits),
                    np.maximum(radii[chosen], (least[chosen] <= kth[:, None]).sum(axis=1) - 1),
                )
                rest.append(chosen[~complete])
                short |= not enough[~complete].all()
            pending, m = np.concatenate(rest), min(_GROWTH * m, codes) if short else m
        empty = ScoredCodes(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return ScoredCodes(*map(np.concatenate, zip(empty, *parts, strict=True)))

    def _centroid_losses(self, weights: Weights) -> Floats:
        """Return the loss of the nearest list's centroid [q], which its best members are like."""
        if self._lists is None:
            return np.full(len(weights.codes), np.inf)
        nearest = faiss.knn_hamming(weights.codes, self._lists.centroids, 1)[1]
        return weights.losses(self._lists.centroids[nearest])[:, 0]

    def _scan(
        self, weights: Weights, vectors: NDArray[np.float32], m: int, radii: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the m best codes within each radius, and perhaps others: numbers [q, m], scores.

        A number is -1 where fewer codes are within the radius.
        """
        scores = np.empty((len(vectors), m), np.float32)
        numbers = np.empty((len(vectors), m), np.int64)
        if self._lists is None:
            codes = self._flat.checked()
            heap: Any = faiss.float_minheap_array_t()
            heap.nh, heap.k = len(vectors), m
            heap.val, heap.ids = faiss.swig_ptr(scores), faiss.swig_ptr(numbers)
            pointers = faiss.swig_ptr(vectors), len(vectors), faiss.swig_ptr(codes), len(codes)
            self._quantiser.search_ip(*pointers, heap)
            return numbers, scores
        selected = self._lists.bounds(weights.codes) <= radii[:, None]
        # faiss may take the sign of a number next to 0 for the other: such bits do not count
        filters = radii + 1 + (np.abs(vectors) < _NEXT_TO_ZERO).sum(axis=1)
        for limit in np.unique(filters):
            group = np.flatnonzero(filters == limit)
            keys = list_keys(selected[group])
            self._lists.check(keys)
            unused = np.zeros(keys.shape, np.float32)  # distances of centroids
            with self._using:
                self._ivf.nprobe = keys.shape[1]
                self._ivf.polysemous_ht = int(min(limit, self._quantiser.d + 1))
                scores[group], numbers[group] = self._ivf.search_preassigned(
                    vectors[group], m, keys, unused
                )
        return numbers, scores

    def _reach(
        self,
        weights: Weights,
        numbers: NDArray[np.int64],
        scores: NDArray[np.float32],
        m: int,
    ) -> Floats:
        """Return what a code loses at least that was scanned and is not among the m best [q]."""
        last = np.where(numbers[:, -1] < 0, 0, scores[:, -1]).astype(np.float64)
        unit = weights.whole.max(axis=1)  # of the scaled vectors
        total = np.divide(weights.totals, unit, out=np.zeros(len(unit)), where=unit > 0)
        total += self._quantiser.d - self._bits  # padding never differs
        # sums of 8 numbers and then of w in float32, twice as much as they can be wrong
        slack = (self._quantiser.M + 16) * _EPSILON * total
        reach = ((total - last) / 2 - slack) * unit - self._bits  # weights are rounded
        return np.where((numbers[:, -1] < 0) | (m == len(self._flat.codes)), np.inf, reach)

    def _exact(self, weights: Weights, numbers: NDArray[np.int64]) -> Floats:
        codes = self._flat.codes_of(np.maximum(numbers, 0))
        return np.where(numbers < 0, np.inf, weights.losses(codes))

    def _kth(self, numbers: NDArray[np.int64], losses: Floats, k: int) -> Floats:
        """Return the loss of the k-th row [q]; inf where the codes have fewer rows."""
        order = np.argsort(losses, axis=1)
        rows = self._postings.counts(np.take_along_axis(numbers, order, axis=1))
        covered = np.cumsum(rows, axis=1) >= k
        column = order[np.arange(len(order)), np.argmax(covered, axis=1)]
        kth = losses[np.arange(len(losses)), column]
        return np.where(covered[:, -1], kth, np.inf)

    def _fill(
        self,
        scored: Scored,
        block: NDArray[np.int64],
        weights: Weights,
        pairs: ScoredCodes,
        k: int,
    ) -> None:
        """Expand codes into rows, sort these, cut them after k, and fill in a block of queries."""
        counts = self._postings.counts(pairs.numbers)
        # a code's rows ascend and tie: only its first k can be returned
        taken = np.minimum(counts, k)
        rows = self._postings.expand(pairs.numbers, taken)
        pair = np.repeat(np.arange(len(taken)), taken)
        order = np.lexsort((rows, pairs.losses[pair], pairs.queries[pair]))
        rows, pair = rows[order], pair[order]
        query = pairs.queries[pair]
        best = np.arange(len(rows)) - np.searchsorted(query, np.arange(len(block)))[query] < k
        rows, pair, query = rows[best], pair[best], query[best]
        losses = pairs.losses[pair]
        last = losses[k - 1 :: k]  # every query has k rows
        ties = pairs.losses == last[pairs.queries]
        different = self._flat.codes_of(pairs.numbers) ^ weights.codes[pairs.queries]
        filled = slice(int(block[0]) * k, (int(block[-1]) + 1) * k)
        scored.rows[filled] = rows
        scored.scores[filled] = weights.scores(query, losses)
        scored.distances[filled] = np.bitwise_count(different).sum(axis=1, dtype=np.int32)[pair]
        scored.tied[block] = np.bincount(pairs.queries[ties], counts[ties], len(block))


def _within(weights: Weights, k: int | None, radius: int, rows: SearchedRows) -> Scored:
    parts, tied, counts = list[tuple[Any, Any, Any]](), [], []
    for query in range(len(weights.codes)):  # a radius may hold all rows: one query at a time
        own = weights[np.array([query])]
        near = rows.within(own.codes, radius)
        losses = own.losses(rows.codes(near.rows)[None])[0]
        order = np.lexsort((near.rows, losses))[:k]
        best = losses[order]
        tied.append(int((losses == best[-1]).sum()) if len(best) else 0)
        counts.append(len(near.rows))
        scores = own.scores(np.zeros(len(order), np.int64), best)
        parts.append((near.rows[order], scores, near.distances[order]))
    empty = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int32)
    own_rows, scores, distances = map(np.concatenate, zip(empty, *parts, strict=True))
    starts = np.append(0, np.cumsum([len(part[0]) for part in parts], dtype=np.int64))
    ties, within_radius = np.array(tied, np.int64), np.array(counts, np.int64)
    return Scored(starts, own_rows, scores, distances, ties, within_radius, rows)


def _byte_signs() -> NDArray[np.float32]:
    """Return the signs of the bits of each byte, the lowest first: [256, 8]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return bits.astype(np.float32) * 2 - 1


def _scaled(relaxed: NDArray[np.floating], width: int) -> NDArray[np.float32]:
    """Return q over its largest |q_i|, padded with -1, the sign of padding bits: [q, width]."""
    largest = np.abs(relaxed).max(axis=1, keepdims=True)
    vectors = np.full((len(relaxed), width), -1, np.float32)
    vectors[:, : relaxed.shape[1]] = np.divide(
        relaxed, largest, out=np.zeros(relaxed.shape), where=largest > 0
    )
    return vectors


@functools.lru_cache(maxsize=4)
def _sign_quantiser(width: int) -> Any:
    """Return a product quantiser that reads packed codes of w bytes as vectors of signs [8 w]."""
    quantiser: Any = faiss.ProductQuantizer(8 * width, width, 8)
    centroids = np.tile(_byte_signs(), (width, 1)).ravel()
    faiss.copy_array_to_vector(centroids, quantiser.centroids)
    return quantiser


def _scored_lists(lists: Lists, quantiser: Any) -> Any:
    """Return faiss's index of the same lists, read by the quantiser; ``lists`` stays the owner."""
    bits, width = quantiser.d, quantiser.M
    ivf: Any = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(bits), bits, len(lists.radii), width, 8, faiss.METRIC_INNER_PRODUCT
    )
    ivf.by_residual, ivf.is_trained, ivf.ntotal = False, True, lists.ivf.ntotal
    faiss.copy_array_to_vector(faiss.vector_to_array(quantiser.centroids), ivf.pq.centroids)
    ivf.replace_invlists(lists.ivf.invlists, False)
    return ivf
