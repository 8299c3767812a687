"""How sure a mean over queries is: the bootstrap over queries (Efron 1979), alone and paired.

It answers how much a figure would swing with other queries of the same kind; not with another
seed of training, another split or another gallery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError

Floats = NDArray[np.float64]
RESAMPLES, LEVEL = 2_000, 0.95
_AT_ONCE = 4_194_304  # cells of (resample, query)


@dataclass(frozen=True)
class Interval:
    """A mean over the defined queries, and the percentile interval of its resamples."""

    mean: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class Difference:
    """A mean difference over paired queries, and whether it could be chance.

    Attributes:
        interval: of the second less the first.
        p_value: share of resampled differences, recentred at 0, that are as far from 0 as the one
            seen; two-sided, with 1 added above and below (Davison and Hinkley 1997), never 0.
    """

    interval: Interval
    p_value: float


def interval(
    values: Floats, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval | None:
    """Return mean and percentile interval over the defined queries; None where there is none.

    Args:
        values: one a query [Q]; NaN where undefined.
        seed: of the resamples.
        resamples: how many.
        level: share of resampled means inside the interval.

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

    Each resample draws queries, and takes both systems' values of them: what makes a query hard
    for both cancels out. A query that either leaves undefined is left out. None without any.

    Raises:
        SchnRayError: different numbers of queries; see also ``interval``.
    """
    if first.shape != second.shape:
        raise SchnRayError(
            f"{len(first)} and {len(second)} queries; wanted the same queries in the same order"
        )
    _check(resamples, level)
    found = interval(second - first, seed, resamples, level)
    if found is None:
        return None
    both = (second - first)[~np.isnan(second - first)]
    means = np.concatenate(list(_resampled_means(both, seed, resamples)))
    # the slack counts a resample that equals what was seen, but for rounding
    extreme = int(np.sum(np.abs(means - found.mean) >= abs(found.mean) - 1e-15))
    return Difference(found, (extreme + 1) / (resamples + 1))


def by_class(values: Floats, labels: Sequence[NDArray[np.int64]]) -> list[Interval | None]:
    """Return the interval over the queries of each class; a query counts in each of its classes.

    Args:
        values: one a query [Q].
        labels: the queries of each class, as places in ``values``.
    """
    return [interval(values[places]) for places in labels]


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise SchnRayError(
            f"{resamples} resamples at level {level:g}; wanted 1 or more, and a level in (0, 1)"
        )


def _resampled_means(values: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    generator = np.random.default_rng([seed, len(values)])
    at_once = max(1, _AT_ONCE // len(values))
    for start in range(0, resamples, at_once):
        size = (min(at_once, resamples - start), len(values))
        yield values[generator.integers(0, len(values), size)].mean(axis=1)
