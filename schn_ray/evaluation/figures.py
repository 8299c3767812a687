"""The figures of an evaluation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.shards.map_shards import MapShards
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.metrics.average_precision import (
    average_precision,
    mean_or_none,
    precision_at,
)
from schn_ray.evaluation.metrics.bootstrap import LEVEL, by_class, interval
from schn_ray.evaluation.metrics.first_hit import reciprocal_rank
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes, count_relevant
from schn_ray.evaluation.metrics.histograms import GradedHistograms
from schn_ray.evaluation.metrics.ndcg import ndcg_at
from schn_ray.evaluation.metrics.reid import reid_figures, reid_histograms, sightings
from schn_ray.evaluation.metrics.summary import Summary, summarise
from schn_ray.evaluation.metrics.tie_rules import legacy_average_precision

Floats = NDArray[np.float64]


class _Measure:
    """Measures the same queries, in the same way, against one gallery or another."""

    def __init__(
        self, queries: LabelledCodes, bits: int, config: EvaluateConfig, map_shards: MapShards
    ) -> None:
        self._queries, self._bits, self._config = queries, bits, config
        self._map_shards = map_shards

    def counted(self, gallery: LabelledCodes) -> GradedHistograms:
        """Count a gallery."""
        part_rows = self._config.part_rows
        return count_relevant(self._queries, gallery, self._bits, part_rows, self._map_shards)

    def figures(self, h: GradedHistograms, gallery_rows: int) -> dict[str, Any]:
        """Return every figure of the whole gallery, as plain values."""
        ks = [k for k in self._config.ks if k <= gallery_rows]
        known = interval(average_precision(h.plain))
        return _figures(summarise(h.plain, ks, self._config.radius)) | {
            "map_interval": None if known is None else asdict(known) | {"level": LEVEL},
            "mrr": mean_or_none(reciprocal_rank(h.plain)),
            "ndcg_gain": "linear",
            "ndcg_at": {str(k): mean_or_none(ndcg_at(h, k)) for k in ks},
        }

    def each(self, h: GradedHistograms) -> dict[str, Floats]:
        """Return what is kept of each query [Q]: what a comparison needs."""
        found = {
            "average_precision": average_precision(h.plain),
            "reciprocal_rank": reciprocal_rank(h.plain),
            "ndcg": ndcg_at(h),
        }
        rows = int(h.plain.gallery.max(initial=0))
        ks = [k for k in self._config.ks if k <= rows]
        return found | {f"precision_at_{k}": precision_at(h.plain, k) for k in ks}

    def legacy(self, gallery: LabelledCodes) -> dict[str, float | None]:
        """Return mAP by each tie rule that was asked for."""
        codes = self._queries.codes, self._queries.labels, gallery.codes, gallery.labels
        return {
            rule: mean_or_none(legacy_average_precision(*codes, rule))
            for rule in self._config.legacy
        }


def _reidentified(
    store: Store, queries: LabelledCodes, gallery: LabelledCodes, bits: int
) -> dict[str, Any] | None:
    """Measure who is found on another camera; None where nobody says who took the queries."""
    if (store.cameras[queries.rows] < 0).any():
        return None
    asked, held = (
        sightings(ranked.codes, ranked.labels, store.cameras[ranked.rows])
        for ranked in (queries, gallery)
    )
    found = asdict(reid_figures(reid_histograms(asked, held, bits)))
    return found | {"cmc": {str(k): value for k, value in found["cmc"].items()}}


def _by_class(store: Store, queries: LabelledCodes, h: GradedHistograms) -> list[dict[str, Any]]:
    columns = queries.labels.tocsc()
    present = np.flatnonzero(np.diff(columns.indptr))
    places = [columns[:, [c]].indices.astype(np.int64) for c in present]
    found = by_class(average_precision(h.plain), places)
    return [
        {"class": store.classes[c], "queries": len(asked), "map": known and known.mean}
        | {"low": known and known.low, "high": known and known.high}
        for c, asked, known in zip(present, places, found, strict=True)
    ]


def _figures(measured: Summary) -> dict[str, Any]:
    curve = measured.pr_curve
    return {
        "bits": measured.bits,
        "queries": measured.queries,
        "undefined_queries": measured.undefined_queries,
        "gallery": measured.gallery,
        "ties": measured.ties,
        "map": measured.map,
        "map_best": measured.map_best,
        "map_worst": measured.map_worst,
        "map_at": {
            str(at.k): {"relevant": at.map_relevant, "min": at.map_min, "hits": at.map_hits}
            for at in measured.at
        },
        "precision_at": {str(at.k): at.precision for at in measured.at},
        "recall_at": {str(at.k): at.recall for at in measured.at},
        "radius": measured.radius,
        "precision_within_radius": measured.precision_within_radius,
        "empty_balls": measured.empty_balls,
        "pr_curve": [
            {"threshold": d, "precision": precision, "recall": recall, "empty": empty}
            for d, (precision, recall, empty) in enumerate(
                zip(curve.precision, curve.recall, curve.empty, strict=True)
            )
        ],
    }
