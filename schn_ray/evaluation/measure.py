"""Compute the figures of an evaluation from codes and labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.shards.map_shards import MapShards
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.figures import ClassFigures, GalleryFigures, MapAt, PRPoint
from schn_ray.evaluation.metrics.average_precision import (
    PRCurve,
    average_precision,
    mean_or_none,
    precision_at,
)
from schn_ray.evaluation.metrics.bootstrap import LEVEL, LevelInterval, by_class, interval
from schn_ray.evaluation.metrics.first_hit import reciprocal_rank
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes, count_relevant
from schn_ray.evaluation.metrics.histograms import GradedHistograms
from schn_ray.evaluation.metrics.ndcg import ndcg_at
from schn_ray.evaluation.metrics.reid import ReidFigures, reid_figures, reid_histograms, sightings
from schn_ray.evaluation.metrics.summary import summarise
from schn_ray.evaluation.metrics.tie_rules import legacy_average_precision

Floats = NDArray[np.float64]


class Evaluator:
    """Measures the same queries, in the same way, against one gallery or another.

    Args:
        queries: Q of them.
        bits: bits of a code, K.
        config: the ranks k, the radius, the tie rules, and the rows that are counted at once.
        map_shards: counts parts of a gallery, on whatever machines.

    Attributes:
        queries: as given.
        bits: as given.
    """

    def __init__(
        self, queries: LabelledCodes, bits: int, config: EvaluateConfig, map_shards: MapShards
    ) -> None:
        self.queries, self.bits = queries, bits
        self._config, self._map_shards = config, map_shards

    def histograms(self, gallery: LabelledCodes) -> GradedHistograms:
        """Count a gallery's rows by distance and grade, for each query."""
        part_rows = self._config.part_rows
        return count_relevant(self.queries, gallery, self.bits, part_rows, self._map_shards)

    def figures(self, h: GradedHistograms, gallery_rows: int) -> GalleryFigures:
        """Return every figure of the ranking of a gallery.

        Args:
            h: its histograms.
            gallery_rows: how many rows it has; a k above it is left out.
        """
        ks = [k for k in self._config.ks if k <= gallery_rows]
        summary = summarise(h.plain, ks, self._config.radius)
        return GalleryFigures(
            bits=summary.bits,
            queries=summary.queries,
            undefined_queries=summary.undefined_queries,
            gallery=summary.gallery,
            ties=summary.ties,
            map=summary.map,
            map_best=summary.map_best,
            map_worst=summary.map_worst,
            map_at={
                at.k: MapAt(relevant=at.map_relevant, min=at.map_min, hits=at.map_hits)
                for at in summary.at
            },
            precision_at={at.k: at.precision for at in summary.at},
            recall_at={at.k: at.recall for at in summary.at},
            radius=summary.radius,
            precision_within_radius=summary.precision_within_radius,
            empty_balls=summary.empty_balls,
            pr_curve=_points(summary.pr_curve),
            map_interval=_interval_of_map(h),
            mrr=mean_or_none(reciprocal_rank(h.plain)),
            ndcg_gain="linear",
            ndcg_at={k: mean_or_none(ndcg_at(h, k)) for k in ks},
        )

    def no_figures(self, gallery_rows: int) -> GalleryFigures:
        """Return the figures of a store without labels: none of them is defined.

        Args:
            gallery_rows: how many rows the gallery has.
        """
        return GalleryFigures(
            bits=self.bits,
            queries=len(self.queries),
            undefined_queries=len(self.queries),
            gallery=gallery_rows,
            ties="expected",
            map=None,
            map_best=None,
            map_worst=None,
            map_at={},
            precision_at={},
            recall_at={},
            radius=self._config.radius,
            precision_within_radius=None,
            empty_balls=None,
            pr_curve=(),
            map_interval=None,
            mrr=None,
            ndcg_gain="linear",
            ndcg_at={},
        )

    def per_query(self, h: GradedHistograms) -> dict[str, Floats]:
        """Return name -> a figure of each query [Q], as a comparison of runs needs them."""
        rows = int(h.plain.gallery.max(initial=0))
        ks = [k for k in self._config.ks if k <= rows]
        return {
            "average_precision": average_precision(h.plain),
            "reciprocal_rank": reciprocal_rank(h.plain),
            "ndcg": ndcg_at(h),
        } | {f"precision_at_{k}": precision_at(h.plain, k) for k in ks}

    def legacy(self, gallery: LabelledCodes) -> dict[str, float | None]:
        """Return mAP by each of the configured tie rules of others."""
        codes = self.queries.codes, self.queries.labels, gallery.codes, gallery.labels
        return {
            rule: mean_or_none(legacy_average_precision(*codes, rule))
            for rule in self._config.legacy
        }


def reidentification(
    store: Store, queries: LabelledCodes, gallery: LabelledCodes, bits: int
) -> ReidFigures | None:
    """Measure the search for the same identity on another camera.

    Args:
        store: has the camera of each row.
        queries: Q of them.
        gallery: G rows.
        bits: bits of a code, K.

    Returns:
        None where a query has no camera.
    """
    if (store.cameras[queries.rows] < 0).any():
        return None
    query_side, gallery_side = (
        sightings(ranked.codes, ranked.labels, store.cameras[ranked.rows])
        for ranked in (queries, gallery)
    )
    return reid_figures(reid_histograms(query_side, gallery_side, bits))


def class_figures(
    classes: tuple[str, ...], queries: LabelledCodes, h: GradedHistograms
) -> tuple[ClassFigures, ...]:
    """Measure the queries of each class by themselves.

    Args:
        classes: names of all C classes.
        queries: Q of them.
        h: their histograms.

    Returns:
        A row a class that at least one query has.
    """
    columns = queries.labels.tocsc()
    present = np.flatnonzero(np.diff(columns.indptr))
    members = [columns[:, [c]].indices.astype(np.int64) for c in present]
    intervals = by_class(average_precision(h.plain), members)
    return tuple(
        ClassFigures(
            name=classes[c],
            queries=len(positions),
            map=None if known is None else known.mean,
            low=None if known is None else known.low,
            high=None if known is None else known.high,
        )
        for c, positions, known in zip(present, members, intervals, strict=True)
    )


def _interval_of_map(h: GradedHistograms) -> LevelInterval | None:
    known = interval(average_precision(h.plain))
    if known is None:
        return None
    return LevelInterval(known.mean, known.low, known.high, known.queries, LEVEL)


def _points(curve: PRCurve) -> tuple[PRPoint, ...]:
    values = zip(curve.precision, curve.recall, curve.empty, strict=True)
    return tuple(
        PRPoint(threshold=d, precision=precision, recall=recall, empty=empty)
        for d, (precision, recall, empty) in enumerate(values)
    )
