"""Exact retrieval metrics in Hamming space, under ties, from two histograms a query.

Distances are integers 0..K, so a ranking is full of ties, and a sorted list depends on the sort as
much as on the codes. So this module does not sort. It counts the rows (n_d) and the relevant rows
(r_d) at each distance d, and each metric is the expectation over all orders of the rows inside ties
(McSherry and Najork, ECIR 2008; He et al., CVPR 2018), in O(K) a query. N_d, R_d are cumulative
counts, and R counts all relevant rows. The expected sum of precisions at the relevant rows of level
d is S_d = r_d/n_d * sum_{i=1..n_d} [R_{d-1} + 1 + (i-1)(r_d-1)/(n_d-1)] / (N_{d-1} + i).

Conventions of every metric:

- A query without relevant rows is *undefined*: the arrays of one value a query hold NaN there, and
  ``mean`` leaves it out. ``Histograms.undefined`` counts them, and every summary reports them.
- Ranks start at 1. A k beyond the gallery is allowed: the ranks that do not exist hold nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.histograms import Counts, Histograms

Floats = NDArray[np.float64]
Denominator = Literal["relevant", "min", "hits"]


def mean(values: Floats) -> float:
    """Return the mean over the defined queries, NaN where none is defined.

    Args:
        values: one a query [Q]; NaN where undefined.
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def mean_or_none(values: Floats) -> float | None:
    """Return the mean over the defined queries, None where none is defined.

    Args:
        values: one a query [Q]; NaN where undefined.
    """
    value = mean(values)
    return None if np.isnan(value) else value


def average_precision(h: Histograms) -> Floats:
    """Return average precision [Q] over the whole gallery, expected over the orders inside ties.

    ``AP = 1/R * sum_d S_d``: the mean over relevant rows of (relevant up to its rank) / rank. NaN
    where R = 0.

    Args:
        h: histograms of Q queries.

    >>> h = Histograms(np.array([[2, 0]]), np.array([[1, 0]]))  # rank 1 or rank 2
    >>> round(mean(average_precision(h)), 9)
    0.75
    """
    relevant = h.relevant_rows
    return _defined(_ratio(_level_sums(h).sum(axis=1), relevant), relevant)


def best_average_precision(h: Histograms) -> Floats:
    """Return average precision [Q] with relevant rows first inside each tie. NaN where R = 0.

    Args:
        h: histograms of Q queries.
    """
    return _bound(h, np.zeros_like(h.all_rows))


def worst_average_precision(h: Histograms) -> Floats:
    """Return average precision [Q] with relevant rows last inside each tie. NaN where R = 0.

    Args:
        h: histograms of Q queries.
    """
    return _bound(h, h.all_rows - h.relevant)


def average_precision_at(h: Histograms, k: int, denominator: Denominator) -> Floats:
    """Return average precision of the first k ranks [Q], expected over the orders inside ties.

    It is the sum of precisions at the relevant rows of the first k ranks, divided by

    - ``relevant``: R, all relevant rows, so it cannot reach 1 where R > k;
    - ``min``: min(R, k), so a perfect list scores 1;
    - ``hits``: the relevant rows within the first k; AP is 0 where there are none. Published tables
      use it, though fewer hits can score more. The number of hits inside the tie at rank k is
      hypergeometric, and the expectation over it is exact.

    With k at or beyond the gallery all three are ``average_precision``. NaN where R = 0.

    Args:
        h: histograms of Q queries.
        k: ranks, 1 or more.
        denominator: what the sum is divided by.

    Raises:
        SchnRayError: k < 1, or an unknown denominator.
    """
    return _average_precision_at(_cut(h, k), denominator)


def precision_at(h: Histograms, k: int) -> Floats:
    """Return the expected share of relevant rows among the first k ranks [Q]. NaN where R = 0.

    The denominator is k, also where the gallery has fewer rows.

    Args:
        h: histograms of Q queries.
        k: ranks, 1 or more.

    Raises:
        SchnRayError: k < 1.
    """
    return _precision_at(_cut(h, k))


def recall_at(h: Histograms, k: int) -> Floats:
    """Return the expected share of the R relevant rows in the first k ranks [Q]. NaN where R = 0.

    Args:
        h: histograms of Q queries.
        k: ranks, 1 or more.

    Raises:
        SchnRayError: k < 1.
    """
    return _recall_at(_cut(h, k))


def precision_within_radius(h: Histograms, radius: int) -> Floats:
    """Return the share of relevant rows among the rows at distance <= radius [Q].

    No order is involved, so ties do not matter. 0 where no row is within the radius (as published
    tables count it), NaN where R = 0.

    Args:
        h: histograms of Q queries.
        radius: Hamming distance in bits, 0 or more.

    Raises:
        SchnRayError: radius < 0.
    """
    near = _within(radius)
    share = _ratio(h.relevant[:, near].sum(axis=1), h.all_rows[:, near].sum(axis=1))
    return _defined(share, h.relevant_rows)


def empty_ball(h: Histograms, radius: int) -> Floats:
    """Return 1 where no row lies at distance <= radius, otherwise 0 [Q]; NaN where R = 0.

    Args:
        h: histograms of Q queries.
        radius: Hamming distance in bits, 0 or more.

    Raises:
        SchnRayError: radius < 0.
    """
    empty = h.all_rows[:, _within(radius)].sum(axis=1) == 0
    return _defined(empty.astype(np.float64), h.relevant_rows)


@dataclass(frozen=True)
class PRCurve:
    """Means over the defined queries, for each distance threshold 0..K; empty without any.

    Attributes:
        precision: K+1 values; a query that retrieves nothing counts as 0, so the value at 2 is
            the mean ``precision_within_radius`` of 2. Divide by ``1 - empty`` for the mean over
            the queries that retrieve something.
        recall: K+1 values, never falling, 1 at the end.
        empty: K+1 values, share of the queries that retrieve nothing.
    """

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    empty: tuple[float, ...]


def pr_curve(h: Histograms) -> PRCurve:
    """Return mean precision and recall of "all rows at distance <= d", for every d.

    Args:
        h: histograms of Q queries.
    """
    defined = h.relevant_rows > 0
    if not defined.any():
        return PRCurve((), (), ())
    rows = np.cumsum(h.all_rows[defined], axis=1)
    relevant = np.cumsum(h.relevant[defined], axis=1)
    curves = (_ratio(relevant, rows), relevant / relevant[:, -1:], rows == 0)
    return PRCurve(*(tuple(curve.mean(axis=0).tolist()) for curve in curves))


@dataclass(frozen=True)
class AtK:
    """Means over the defined queries for the first k ranks; None where no query is defined.

    Attributes:
        k: ranks.
        map_relevant: average precision with denominator ``relevant``.
        map_min: average precision with denominator ``min``.
        map_hits: average precision with denominator ``hits``.
        precision: share of relevant rows in these ranks.
        recall: share of the relevant rows that lie in these ranks.
    """

    k: int
    map_relevant: float | None
    map_min: float | None
    map_hits: float | None
    precision: float | None
    recall: float | None


def means_at(h: Histograms, k: int) -> AtK:
    """Return every metric of the first k ranks, averaged over the defined queries.

    Args:
        h: histograms of Q queries.
        k: ranks, 1 or more.

    Raises:
        SchnRayError: k < 1.
    """
    cut = _cut(h, k)  # the costly part, once
    return AtK(
        k=k,
        map_relevant=mean_or_none(_average_precision_at(cut, "relevant")),
        map_min=mean_or_none(_average_precision_at(cut, "min")),
        map_hits=mean_or_none(_average_precision_at(cut, "hits")),
        precision=mean_or_none(_precision_at(cut)),
        recall=mean_or_none(_recall_at(cut)),
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """Each query's list cut at rank k, inside the level d*; arrays [Q]."""

    k: int
    relevant: Counts  # relevant rows of the whole gallery
    n: Counts  # rows of the level, relevant ones (r), and those within the first k ranks (m)
    r: Counts
    m: Counts
    N: Counts  # rows of the levels before, relevant ones (R), and their sum of S_d
    R: Counts
    sum_before: Floats
    span: Floats  # sum of 1/rank over the level's m ranks

    @property
    def expected_hits(self) -> Floats:
        return self.R + self.m * _ratio(self.r, self.n)


def _cut(h: Histograms, k: int) -> _Cut:
    if k < 1:
        raise SchnRayError(f"k = {k}; expected 1 or more ranks")
    rank = np.minimum(k, h.gallery)
    level = np.argmax(np.cumsum(h.all_rows, axis=1) >= rank[:, None], axis=1)[:, None]
    N, R, n, r = (
        np.take_along_axis(counts, level, axis=1)[:, 0]
        for counts in (_before(h.all_rows), _before(h.relevant), h.all_rows, h.relevant)
    )
    m = rank - N
    sum_before = np.where(np.arange(h.bits + 1) < level, _level_sums(h), 0.0).sum(axis=1)
    return _Cut(k, h.relevant_rows, n, r, m, N, R, sum_before, _harmonic_span(N, m))


def _average_precision_at(cut: _Cut, denominator: Denominator) -> Floats:
    if denominator == "hits":
        return _defined(_expected_over_hits(cut), cut.relevant)
    in_tie = _expected_sum(cut.n, cut.r, cut.m, cut.N, cut.R, cut.span)
    total = cut.sum_before + in_tie
    if denominator == "relevant":
        return _defined(_ratio(total, cut.relevant), cut.relevant)
    if denominator == "min":
        return _defined(_ratio(total, np.minimum(cut.relevant, cut.k)), cut.relevant)
    raise SchnRayError(f"denominator '{denominator}'; expected 'relevant', 'min' or 'hits'")


def _precision_at(cut: _Cut) -> Floats:
    return _defined(cut.expected_hits / cut.k, cut.relevant)


def _recall_at(cut: _Cut) -> Floats:
    return _defined(_ratio(cut.expected_hits, cut.relevant), cut.relevant)


def _level_sums(h: Histograms) -> Floats:
    """Return S_d [Q, K+1], the expected sum of precisions at the relevant rows of each level."""
    hit = h.relevant > 0  # most levels have no relevant row and need no work
    n, r, N, R = (
        counts[hit] for counts in (h.all_rows, h.relevant, _before(h.all_rows), _before(h.relevant))
    )
    sums = np.zeros(hit.shape)
    sums[hit] = _expected_sum(n, r, n, N, R, _harmonic_span(N, n))
    return sums


def _expected_sum(n: Counts, r: Counts, m: Counts, N: Counts, R: Counts, span: Floats) -> Floats:
    """Return the expected sum of precisions at the relevant ones of ranks N+1..N+m, m <= n.

    Rank N+i is relevant with probability r/n. Then each of its i-1 tied predecessors is relevant
    with probability p = (r-1)/(n-1). So the sum is r/n * sum_i (R + 1 + (i-1) p) / (N+i).
    ``span`` is the sum of 1/(N+i).
    """
    # n = 1 leaves p undefined; 1 makes a list of only relevant rows score exactly 1
    p = np.where(n == 1, 1.0, _ratio(r - 1, n - 1))
    return _ratio(r, n) * ((R + 1 - p * (N + 1)) * span + p * m)


def _expected_over_hits(cut: _Cut) -> Floats:
    """Return E[sum of precisions / hits] over the first k ranks [Q], 0 where there is no hit."""
    totals = np.zeros(len(cut.n))
    for i in np.flatnonzero(cut.R + cut.r):
        m = cut.m[i]
        hits, probability = _hits_in_tie(int(cut.n[i]), int(cut.r[i]), int(m))
        in_tie = _expected_sum(m, hits, m, cut.N[i], cut.R[i], cut.span[i])
        sums = cut.sum_before[i] + in_tie
        totals[i] = np.sum(probability * _ratio(sums, cut.R[i] + hits))
    return totals


def _hits_in_tie(n: int, r: int, m: int) -> tuple[Counts, Floats]:
    """Return the possible numbers of relevant rows among m of n tied rows, and their probabilities.

    Hypergeometric, without the tails that hold less than 1e-20 in all. Ratios of neighbours,
    multiplied outwards from the mode, lose no digits where differences of log-gamma would lose
    six at 50,000 rows.
    """
    likely, spread = round(m * r / n), int(_SPREAD * m**0.5) + 1
    fewest, most = max(0, m - (n - r), likely - spread), min(m, r, likely + spread)
    hits = np.arange(fewest, most + 1)
    J = hits[:-1].astype(np.float64)
    ratio = (r - J) * (m - J) / ((J + 1) * (n - r - m + J + 1))  # P(J+1) / P(J), falling
    mode = int(np.sum(ratio > 1))
    below, above = np.cumprod(1 / ratio[:mode][::-1])[::-1], np.cumprod(ratio[mode:])
    likelihood = np.concatenate([below, [1.0], above])
    return hits, likelihood / likelihood.sum()


_SPREAD = 5  # in roots of m: Hoeffding's bound on both tails is 2 exp(-2 * 5**2) < 1e-20


def _bound(h: Histograms, ahead: Counts) -> Floats:
    """Return AP with the relevant rows of a level next to each other, after ``ahead`` others."""
    hit = h.relevant > 0
    r, R = h.relevant[hit], _before(h.relevant)[hit]
    start = (_before(h.all_rows) + ahead)[hit]
    sums = np.zeros(h.relevant.shape)
    # the sum over i = 1..r of (R+i) / (start+i)
    sums[hit] = r - (start - R) * _harmonic_span(start, r)
    return _defined(_ratio(sums.sum(axis=1), h.relevant_rows), h.relevant_rows)


def _harmonic_span(start: Counts, length: Counts) -> Floats:
    """Return 1/(start+1) + ... + 1/(start+length), to a relative error of about 1e-15.

    It is digamma(start+length+1) - digamma(start+1), but not computed as a difference of two large
    numbers: the first terms are subtracted one by one, and the rest is Stirling's series around
    the half-integer (NIST DLMF 5.11.2 shifted by 1/2), with both logarithms in one log1p.
    """
    x, d = start.astype(np.float64), length.astype(np.float64)
    span = np.zeros(x.shape)
    for _ in range(_SHIFT):
        x += 1
        span += d / (x * (x + d))
    x += 0.5
    return span + np.log1p(d / x) + (_stirling(x + d) - _stirling(x))


_SHIFT = 16
_STIRLING = (511 / 67584, -127 / 30720, 31 / 8064, -7 / 960, 1 / 24)  # enough from x = 16.5 up


def _stirling(x: Floats) -> Floats:
    """Return digamma(x + 1/2) - log(x)."""
    square, total = x**-2, np.zeros(x.shape)
    for coefficient in _STIRLING:
        total = (total + coefficient) * square
    return total


def _before(counts: Counts) -> Counts:
    """Return how many rows lie at smaller distances [Q, K+1]."""
    return np.cumsum(counts, axis=1) - counts


def _within(radius: int) -> slice:
    if radius < 0:
        raise SchnRayError(f"radius {radius}; expected 0 or more")
    return slice(0, radius + 1)


def _defined(values: Floats, relevant: Counts) -> Floats:
    """Return the values [Q], NaN for the queries without relevant rows."""
    return np.where(relevant > 0, values, np.nan)


def _ratio(numerator: Counts | Floats, denominator: Counts | Floats) -> Floats:
    """Return numerator / denominator, 0 where the denominator is 0."""
    zero = np.equal(denominator, 0)
    return np.asarray(np.where(zero, 0.0, numerator / np.where(zero, 1, denominator)))
