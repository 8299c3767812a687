"""All metrics of a ranking, averaged over queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.average_precision import (
    AtK,
    PRCurve,
    average_precision,
    best_average_precision,
    empty_ball,
    mean_or_none,
    means_at,
    pr_curve,
    precision_within_radius,
    worst_average_precision,
)
from schn_ray.evaluation.metrics.histograms import Histograms


@dataclass(frozen=True)
class Summary:
    """Every metric as a mean over the defined queries; None where no query is defined.

    Attributes:
        bits: bits of a code.
        gallery: rows that each query ranks.
        queries: all queries, the undefined ones included.
        undefined_queries: queries without relevant rows, left out of every mean.
        ties: the tie rule of every figure but the two bounds.
        map: mean average precision over the whole gallery; None where no query is defined.
        map_best: the same with relevant rows first inside each tie.
        map_worst: the same with relevant rows last inside each tie.
        at: figures of the first k ranks, for each k.
        radius: of the two figures that follow.
        precision_within_radius: an empty ball counts as 0.
        empty_balls: share of the queries that have no row within the radius.
        pr_curve: by distance threshold.
    """

    bits: int
    gallery: int
    queries: int
    undefined_queries: int
    ties: str
    map: float | None
    map_best: float | None
    map_worst: float | None
    at: tuple[AtK, ...]
    radius: int
    precision_within_radius: float | None
    empty_balls: float | None
    pr_curve: PRCurve


def summarise(h: Histograms, ks: Sequence[int] = (10, 100, 1000), radius: int = 2) -> Summary:
    """Compute every metric of one ranking.

    Args:
        h: the histograms of all queries over the whole gallery.
        ks: ranks at which to cut the list; see ``average_precision_at`` for k beyond the gallery.
        radius: of ``precision_within_radius``; 2 in published tables.

    Raises:
        SchnRayError: queries that rank different numbers of rows, a k < 1, or a radius < 0.
    """
    sizes = np.unique(h.gallery)
    if len(sizes) > 1:
        raise SchnRayError(
            f"queries rank between {sizes[0]} and {sizes[-1]} rows; expected one gallery for all"
        )
    return Summary(
        bits=h.bits,
        gallery=int(sizes[0]) if len(sizes) else 0,
        queries=len(h),
        undefined_queries=h.undefined,
        ties="expected",
        map=mean_or_none(average_precision(h)),
        map_best=mean_or_none(best_average_precision(h)),
        map_worst=mean_or_none(worst_average_precision(h)),
        at=tuple(means_at(h, k) for k in ks),
        radius=radius,
        precision_within_radius=mean_or_none(precision_within_radius(h, radius)),
        empty_balls=mean_or_none(empty_ball(h, radius)),
        pr_curve=pr_curve(h),
    )
