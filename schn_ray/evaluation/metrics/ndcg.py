"""NDCG: rankings graded by how many labels a row shares with the query, exact under ties.

The expectation over all orders inside ties has a closed form (McSherry and Najork, ECIR 2008): each
rank of a tie expects the mean gain of its rows, so a level adds its mean gain times the sum of its
ranks' discounts.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.histograms import GradedHistograms

Floats = NDArray[np.float64]
Gain = Literal["linear", "exponential"]


def ndcg_at(h: GradedHistograms, k: int | None = None, gain: Gain = "linear") -> Floats:
    """Return the expected normalised discounted cumulative gain of the first k ranks [Q].

    DCG sums gain / log2(rank + 1); NDCG is DCG over that of the best possible order. NaN for a
    query that shares no label with any row.

    Args:
        h: graded histograms of Q queries.
        k: ranks; None, or more than the gallery has: the whole gallery.
        gain: of a row that shares g labels; ``linear``: g; ``exponential``: 2^g - 1.

    Raises:
        SchnRayError: k < 1, or an unknown gain.
    """
    if k is not None and k < 1:
        raise SchnRayError(f"k = {k}; expected 1 or more ranks")
    gains = _gains(h.counts.shape[1], gain)
    rows = h.counts.sum(axis=(1, 2))
    longest = int(rows.max(initial=0))
    discounts = _cumulative_discounts(longest if k is None else min(k, longest))
    level_rows = h.counts.sum(axis=1)
    level_gains = np.tensordot(gains, h.counts, axes=(0, 1))
    reached = np.divide(
        level_gains, level_rows, out=np.zeros(level_rows.shape), where=level_rows > 0
    )
    of_grade = h.counts.sum(axis=2)[:, ::-1]  # the best order: highest grades first
    best = _discounted(of_grade, gains[::-1], discounts)
    expected = _discounted(level_rows, reached, discounts)
    return np.divide(expected, best, out=np.full(len(h), np.nan), where=best > 0)


def _gains(grades: int, gain: Gain) -> Floats:
    grade = np.arange(grades, dtype=np.float64)
    if gain == "linear":
        return grade
    if gain == "exponential":
        return np.exp2(grade) - 1
    raise SchnRayError(f"gain '{gain}'; expected 'linear' or 'exponential'")


def _cumulative_discounts(k: int) -> Floats:
    """Return the sum of the discounts of the first 0..k ranks [k+1]."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])


def _discounted(rows: NDArray[np.int64], gain: Floats, discounts: Floats) -> Floats:
    """Return the DCG [Q] of consecutive groups of rows [Q, groups], each of one gain."""
    ends = np.cumsum(rows, axis=1)
    last = len(discounts) - 1
    spans = discounts[np.minimum(ends, last)] - discounts[np.minimum(ends - rows, last)]
    return np.asarray((gain * spans).sum(axis=1))
