"""Choose rows by distance: the k nearest, or all within a radius, and all that tie with the last.

Every search by distance chooses its rows with ``NearestRows.blocks``. ``NearestRows._by_rank`` is
where a result is certified: a query whose k-th row lies nearer than the ``reach`` of the first scan
is complete; for the others, ``Scan.within`` returns all codes up to the k-th distance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schn_ray.retrieval.index.inverted_lists import kth_distance
from schn_ray.retrieval.index.postings import QUERIES_AT_MOST, Levels, Postings
from schn_ray.retrieval.index.scan import Bytes, Flat, Pairs, Scan, concat_pairs

_CELLS = 1 << 21  # queries x codes in memory at once
_QUICK_WIDTH = 8  # bytes; only for codes up to this width is a scan by radius the quicker one
_PAIRS = 1 << 24  # pairs within a radius in memory at once, in the worst case


class NearestRows:
    """Chooses rows by the distance of their codes; threads may share it.

    Args:
        scan: finds distinct codes: all of them, or by lists.
        flat: has all distinct codes.
        postings: the rows of each code.
        bits: of a code.
    """

    def __init__(self, scan: Scan, flat: Flat, postings: Postings, bits: int) -> None:
        self._scan, self._codes, self._postings = scan, flat.codes, postings
        self._bits, self._rows = bits, postings.total

    def blocks(
        self, codes: Bytes, most: int | None, radius: int | None
    ) -> Iterator[tuple[slice, Pairs, Levels]]:
        """Yield the codes of the ``most`` nearest rows, and of all that tie with the last.

        Args:
            codes: uint8 [q, w], checked.
            most: rows of each query; None for all within the radius.
            radius: in bits; None for any distance.

        Yields:
            A block of the queries, its codes, numbered from the block's start, and their levels.
        """
        radius = None if radius is None else min(radius, self._bits)
        most = self._rows if most is None else min(most, self._rows)
        plan, start = _NearestPlan(most, self._codes, self._scan.exhaustive), 0
        while start < len(codes):
            at_once = plan.queries_at_once() if radius is None else self._queries_within(radius)
            block = slice(start, min(start + at_once, len(codes)))
            queries = np.ascontiguousarray(codes[block])
            if radius is None:
                pairs = self._nearest(queries, plan)
            else:
                pairs = self._scan.within(queries, np.full(len(queries), radius, np.int32))
            levels = self._postings.levels(pairs, len(queries), most)
            yield block, pairs.upto(levels.last), levels
            start = block.stop

    def _queries_within(self, radius: int) -> int:
        capacity = min(_PAIRS // len(self._codes), _CELLS // (radius + 1))
        return min(QUERIES_AT_MOST, max(1, capacity))

    def _nearest(self, queries: Bytes, plan: _NearestPlan) -> Pairs:
        """Return the codes of each query's k nearest rows, and all that tie with the last."""
        if plan.radius is None:
            return self._by_rank(queries, plan)
        pairs = self._scan.within(queries, np.full(len(queries), plan.radius, np.int32))
        short = self._postings.levels(pairs, len(queries), plan.k).within_radius < plan.k
        if not short.any():
            return pairs
        rest = np.flatnonzero(short)
        more = self._by_rank(queries[rest], plan)
        complete = pairs.upto(np.where(short, -1, plan.radius).astype(np.int32))
        return concat_pairs([complete, more._replace(queries=rest[more.queries])])

    def _by_rank(self, queries: Bytes, plan: _NearestPlan) -> Pairs:
        """As ``_nearest``: scan for the nearest codes, and again where codes may be missing."""
        near = self._scan.nearest(queries, plan.codes)
        counts = self._postings.counts(near.numbers)
        kth = kth_distance(near.distances, counts, plan.k)
        # certified: no code that the scan did not return is as near as the k-th row
        complete = kth < near.reach
        close = (near.distances <= kth[:, None]) & complete[:, None] & (near.numbers >= 0)
        query = np.nonzero(close)[0]
        pairs = Pairs(query, near.numbers[close], near.distances[close])
        if not complete.all():
            rest = np.flatnonzero(~complete)
            more = self._scan.within(queries[rest], kth[rest])
            more = more._replace(queries=rest[more.queries])
            pairs = concat_pairs([pairs, more])
        plan.learn(np.bincount(pairs.queries, minlength=len(queries)), kth)
        return pairs


class _NearestPlan:
    """How many codes to scan for, so that one scan returns k rows and all that tie with the last.

    An exhaustive scan starts from a guess and learns from earlier queries. If the k-th row is about
    equally far from all of them, as in codes without clusters, then a scan for all codes within
    that distance is quicker than one for a number of codes: it needs no heap of candidates.

    Attributes:
        k: rows of each query.
        codes: codes to scan for, of each query.
        radius: the learned distance of the k-th row, in bits; None where ``codes`` decides.
    """

    def __init__(self, k: int, codes: Bytes, exhaustive: bool) -> None:
        self.k, self._unique_codes, self._exhaustive = k, len(codes), exhaustive
        self._quick = exhaustive and codes.shape[1] <= _QUICK_WIDTH
        self.codes = min(2 * k + 64 if exhaustive else k, len(codes))
        self.radius: int | None = None
        self._learned = not exhaustive

    def queries_at_once(self) -> int:
        """Return how many queries fit into memory; few before anything was learned."""
        if self.radius is not None:  # every code may be within it
            return max(1, min(1024, _PAIRS // self._unique_codes))
        capacity = _CELLS // max(self.codes, 512)
        return max(16, min(1024, capacity)) if self._learned else 32

    def learn(self, needed: NDArray[np.int64], kth: NDArray[np.int32]) -> None:
        """Learn from a block of q queries.

        Args:
            needed: int64 [q], codes that each query had up to its k-th row, ties included.
            kth: int32 [q], distances of their k-th rows.
        """
        if self._exhaustive:
            if self._quick and not self._learned and int(kth.max()) - int(kth.min()) <= 1:
                self.radius = int(kth.max())
            usual = int(np.quantile(needed, 0.98)) + 8
            self.codes = min(max(usual, 16), self._unique_codes)
        self._learned = True
