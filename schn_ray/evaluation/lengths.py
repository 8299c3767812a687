"""The figures of nested codes by length: the first bits of the codes that were made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.bits import first_bits
from schn_ray.data.shards.map_shards import MapShards
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.figures import LengthFigures
from schn_ray.evaluation.measure import Evaluator
from schn_ray.evaluation.metrics.bootstrap import paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasuredLengths:
    """What was measured by length.

    Attributes:
        figures: a row a length, ascending.
        per_query: column of ``queries.parquet`` -> average precision of each query [Q].
    """

    figures: tuple[LengthFigures, ...] = ()
    per_query: dict[str, Floats] = field(default_factory=dict)


def measure_lengths(
    lengths: Sequence[int],
    queries: LabelledCodes,
    gallery: LabelledCodes,
    config: EvaluateConfig,
    map_shards: MapShards,
) -> MeasuredLengths:
    """Measure the codes' first bits at each length, and what each length loses against the longest.

    Args:
        lengths: ascending, K last; none: nothing is measured.
        queries: Q of them, with codes of K bits.
        gallery: G rows, with codes of K bits that the model made.
        config: what is measured.
        map_shards: counts parts of a gallery, on whatever machines.
    """
    figures, per_query = [], {}
    longest: Floats | None = None
    for bits in reversed(lengths):
        near, far = _cut(queries, bits), _cut(gallery, bits)
        evaluator = Evaluator(near, bits, config, map_shards)
        h = evaluator.histograms(far)
        values = evaluator.per_query(h)["average_precision"]
        longest = values if longest is None else longest
        of_length = evaluator.figures(h, len(far))
        figures.append(
            LengthFigures(
                bits=bits,
                map=of_length.map,
                map_interval=of_length.map_interval,
                less_longest=paired_difference(longest, values),
                precision_at=of_length.precision_at,
                precision_within_radius=of_length.precision_within_radius,
                unique_share=len(np.unique(far.codes, axis=0)) / len(far),
            )
        )
        per_query[f"average_precision_of_{bits}_bits"] = values
    return MeasuredLengths(tuple(reversed(figures)), per_query)


def _cut(rows: LabelledCodes, bits: int) -> LabelledCodes:
    return replace(rows, codes=first_bits(rows.codes, bits))
