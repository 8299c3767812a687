"""The bootstrap over queries (Efron 1979): how sure a mean, or a difference of means, is.

It says how much a figure would vary with other queries of the same kind. It does not cover another
training seed, another split or another gallery.

``scipy.stats.bootstrap`` does not serve: it refuses a single query, which a class may have, gives
no p-value for a paired difference, and rounds the ends of the interval differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError

Floats = NDArray[np.float64]
RESAMPLES, LEVEL = 2_000, 0.95
_CHUNK_CELLS = 4_194_304  # cells of (resample, query) in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean over the defined queries, and the percentile interval of its resamples.

    Attributes:
        mean: over the defined queries.
        low: lower end of the interval.
        high: upper end of the interval.
        queries: the defined ones.
    """

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class LevelInterval(Interval):
    """An interval with its level.

    Attributes:
        level: share of the resampled means that lie inside, such as 0.95.
    """

    level: float


@dataclass(frozen=True)
class Difference:
    """A mean difference over paired queries, and whether it could be chance.

    Attributes:
        interval: of the second less the first.
        p_value: two-sided; share of the resampled differences, recentred at 0, that are as far
            from 0 as the observed one. 1 is added to both counts (Davison and Hinkley 1997, chapter
            4), so that it is never 0.
    """

    interval: Interval
    p_value: float


def interval(
    values: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval | None:
    """Return mean and percentile interval over the defined queries.

    Args:
        values: one a query [Q]; NaN where undefined.
        seed: of the resamples.
        resamples: how many.
        level: share of resampled means inside the interval.

    Returns:
        None where no query is defined.

    Raises:
        SchnRayError: fewer than 1 resample, or a level outside (0, 1).
    """
    _check(resamples, level)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    means = np.concatenate(list(_resampled_means(defined, seed, resamples)))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(defined.mean()), float(low), float(high), len(defined))


def paired_difference(
    first: Floats,
    second: Floats,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Difference | None:
    """Compare two systems on the same queries: the mean of second - first, and how sure it is.

    Each resample draws queries and takes both systems' values of them, so what makes a query hard
    for both cancels out. A query that is undefined for either system is left out.

    Args:
        first: the first system's value of each query [Q]; NaN where undefined.
        second: the second system's values of the same queries [Q].
        seed: of the resamples.
        resamples: how many.
        level: share of resampled differences inside the interval.

    Returns:
        None where no query is defined for both.

    Raises:
        SchnRayError: different numbers of queries; see also ``interval``.
    """
    if first.shape != second.shape:
        raise SchnRayError(
            f"{len(first)} and {len(second)} queries; expected the same queries in the same order"
        )
    _check(resamples, level)
    known = interval(second - first, seed, resamples, level)
    if known is None:
        return None
    both = (second - first)[~np.isnan(second - first)]
    means = np.concatenate(list(_resampled_means(both, seed, resamples)))
    # the slack is for rounding: a resample that equals the observed difference counts
    extreme = int(np.sum(np.abs(means - known.mean) >= abs(known.mean) - 1e-15))
    return Difference(known, (extreme + 1) / (resamples + 1))


def by_class(values: Floats, labels: Sequence[NDArray[np.int64]]) -> list[Interval | None]:
    """Return the interval over the queries of each class; a query counts in each of its classes.

    Args:
        values: one a query [Q].
        labels: the queries of each class, as positions in ``values``.
    """
    return [interval(values[positions]) for positions in labels]


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise SchnRayError(
            f"{resamples} resamples at level {level:g}; expected 1 or more, and a level in (0, 1)"
        )


def _resampled_means(values: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    generator = np.random.default_rng([seed, len(values)])
    chunk = max(1, _CHUNK_CELLS // len(values))
    for start in range(0, resamples, chunk):
        size = (min(chunk, resamples - start), len(values))
        yield values[generator.integers(0, len(values), size)].mean(axis=1)
