"""Several runs in one report: a table of methods, and their curves over each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schn_ray.report.charts import precision_recall
from schn_ray.report.diagrams import Diagram, curves_at_ranks, map_by_bits

if TYPE_CHECKING:
    from schn_ray.evaluation.compare import Comparison, MethodFigures, Spread

_MOST = 12  # curves that colours and line styles tell apart
_BITS = re.compile(r"^\d+ bits(?:, )?")


@dataclass(frozen=True)
class Overview:
    """What a report of several runs opens with.

    Attributes:
        sentence: what was compared, on what.
        header: of the table.
        rows: of the table, a method each.
        gaps: a sentence a difference.
        diagrams: curves of all runs.
    """

    sentence: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    gaps: tuple[str, ...]
    diagrams: tuple[Diagram, ...]


def overview(
    found: Comparison,
    metrics: Mapping[str, Mapping[str, Any]],
    diagrams: Mapping[str, Mapping[str, Any]],
) -> Overview:
    """Lay a comparison out; ``metrics`` and ``diagrams`` are of each run, by its name."""
    some = dict(list(metrics.items())[:_MOST])
    drawn = [
        map_by_bits(_by_bits(found.methods)),
        precision_recall({}, some),
        curves_at_ranks({name: diagrams[name] for name in some}),
    ]
    runs = sum(len(method.runs) for method in found.methods)
    return Overview(
        sentence=(
            f"{runs} runs, measured on the same {found.queries:,} queries against the same "
            f"{found.gallery:,} gallery images; gallery codes {found.gallery_codes}, protocol "
            f"{found.protocol}."
        ),
        header=("Method", "Seeds", "mAP", "MRR", "Classifier's codeword", "Features by cosine"),
        rows=tuple(_row(method) for method in found.methods),
        gaps=tuple(
            f"{gap.method} less {gap.less}: {gap.difference.interval.mean:+.4f} mAP, 95 % of "
            f"resampled query sets within {gap.difference.interval.low:+.4f} and "
            f"{gap.difference.interval.high:+.4f}; p = {gap.difference.p_value:.2g}."
            for gap in found.gaps
        ),
        diagrams=tuple(diagram for diagram in drawn if diagram is not None),
    )


def _row(method: MethodFigures) -> tuple[str, ...]:
    controls = (method.controls.get(name) for name in ("classifier", "cosine"))
    return (
        method.name,
        str(len(method.runs)),
        _spread(method.figures.get("map")),
        _spread(method.figures.get("mrr")),
        *("" if value is None else f"{value:.3f}" for value in controls),
    )


def _spread(value: Spread | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.3f}" + ("" if value.deviation is None else f" ± {value.deviation:.3f}")


def _by_bits(methods: Sequence[MethodFigures]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return method without its bits -> bits -> mean and deviation of mAP."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for method in methods:
        spread = method.figures.get("map")
        if spread is not None:
            name = _BITS.sub("", method.name)
            found.setdefault(name, {})[method.bits] = (spread.mean, spread.deviation or 0.0)
    return found
