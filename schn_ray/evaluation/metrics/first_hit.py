"""The rank of the first relevant row: reciprocal rank and CMC, exact under ties.

Both depend on one level only: the nearest with a relevant row. Inside it, the first relevant rank
is the smallest of r ranks drawn without replacement from n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.histograms import Counts, Histograms

Floats = NDArray[np.float64]
_NEVER = 1e-20  # a probability that changes no digit


def reciprocal_rank(h: Histograms) -> Floats:
    """Return the expected 1 / rank of the first relevant row [Q]; its mean is the MRR.

    NaN where R = 0.

    Args:
        h: histograms of Q queries.

    >>> h = Histograms(np.array([[2, 0]]), np.array([[1, 0]]))  # rank 1 or rank 2
    >>> reciprocal_rank(h).tolist()
    [0.75]
    """
    first = _first_level(h)
    # many queries share a code, so most cases repeat
    cases, which = np.unique(first.defined_cases(), axis=0, return_inverse=True)
    values = np.array([_expected_reciprocal(*map(int, case)) for case in cases])
    expected = np.full(len(h), np.nan)
    expected[first.defined] = values[which.reshape(-1)]
    return expected


def hit_rate_at(h: Histograms, k: int) -> Floats:
    """Return the probability that the first k ranks hold a relevant row [Q]: CMC at k.

    NaN where R = 0.

    Args:
        h: histograms of Q queries.
        k: ranks, 1 or more.

    Raises:
        SchnRayError: k < 1.
    """
    if k < 1:
        raise SchnRayError(f"k = {k}; expected 1 or more ranks")
    first = _first_level(h)
    probability = np.full(len(h), np.nan)
    probability[first.defined] = [_hit(k, *map(int, case)) for case in first.defined_cases()]
    return probability


@dataclass(frozen=True, eq=False)
class _FirstLevel:
    """Each query's nearest level with a relevant row; arrays [Q]."""

    defined: NDArray[np.bool_]
    N: Counts  # rows before it
    n: Counts  # its rows
    r: Counts  # its relevant rows

    def defined_cases(self) -> Counts:
        """N, n, r of the defined queries [defined, 3]."""
        return np.stack([self.N, self.n, self.r], axis=1)[self.defined]


def _first_level(h: Histograms) -> _FirstLevel:
    level = np.argmax(h.relevant > 0, axis=1)[:, None]
    before = np.cumsum(h.all_rows, axis=1) - h.all_rows
    N, n, r = (
        np.take_along_axis(counts, level, axis=1)[:, 0]
        for counts in (before, h.all_rows, h.relevant)
    )
    return _FirstLevel(h.relevant_rows > 0, N, n, r)


def _expected_reciprocal(N: int, n: int, r: int) -> float:
    """Sum over i = 1..n-r+1 of P(the first of r among n is at i) / (N + i)."""
    # P(first > i) <= (1 - r/n)^i: later terms change no digit
    likely = n if r == n else int(np.ceil(np.log(_NEVER) / np.log1p(-r / n))) + 1
    terms = min(n - r + 1, likely)
    i = np.arange(1, terms, dtype=np.float64)
    probability = np.cumprod(np.concatenate([[r / n], (n - i - r + 1) / (n - i)]))
    return float(np.sum(probability / (N + np.arange(1, terms + 1))))


def _hit(k: int, N: int, n: int, r: int) -> float:
    m = min(k - N, n)  # ranks of the level within the first k
    if m <= 0:
        return 0.0
    fewer, more = min(r, m), max(r, m)
    j = np.arange(fewer, dtype=np.float64)
    # C(n-r, m) / C(n, m), in whichever of its two forms has fewer factors
    return float(1 - np.prod(np.maximum(n - more - j, 0) / (n - j)))
