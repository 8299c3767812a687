"""The top of a report of two or more runs: a table of methods, and all their curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import PlotData
from schn_ray.report.charts import MOST_CURVES, precision_recall
from schn_ray.report.diagrams import Diagram, curves_at_ranks, map_by_bits

if TYPE_CHECKING:
    from schn_ray.evaluation.compare import Comparison, Gap, MethodFigures, Spread

_CONTROLS = {
    "classifier": "Classifier's codeword",
    "cosine": "Features by cosine",
    "itq": "ITQ of the features",
}
_BITS = re.compile(r"^\d+ bits(?:, )?")


@dataclass(frozen=True)
class Overview:
    """The comparison on top of a report of two or more runs.

    Attributes:
        sentence: what was compared, and on what.
        header: of the table.
        rows: of the table, a method each.
        gaps: a sentence a difference between methods.
        diagrams: curves of all runs.
    """

    sentence: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    gaps: tuple[str, ...]
    diagrams: tuple[Diagram, ...]


def overview(
    comparison: Comparison,
    figures: Mapping[str, Figures],
    plots: Mapping[str, PlotData],
) -> Overview:
    """Turn a comparison into sentences, a table and diagrams.

    Args:
        comparison: of all runs.
        figures: name of a run -> its figures; the curves of the first 12 are drawn.
        plots: name of a run -> the numbers of its diagrams.
    """
    drawn = list(figures)[:MOST_CURVES]
    diagrams = [
        map_by_bits(_by_bits(comparison.methods)),
        precision_recall({name: figures[name].pr_curve for name in drawn}),
        curves_at_ranks({name: plots[name].at for name in drawn}),
    ]
    runs = sum(len(method.runs) for method in comparison.methods)
    return Overview(
        sentence=(
            f"{runs} runs, measured on the same {comparison.queries:,} queries against the same "
            f"{comparison.gallery:,} gallery images; gallery codes {comparison.gallery_codes}, "
            f"protocol {comparison.protocol}."
        ),
        header=("Method", "Seeds", comparison.figure_name, "MRR", *_CONTROLS.values()),
        rows=tuple(_row(method, comparison.figure) for method in comparison.methods),
        gaps=tuple(_gap(gap, comparison.figure_name) for gap in comparison.gaps),
        diagrams=tuple(diagram for diagram in diagrams if diagram is not None),
    )


def _gap(gap: Gap, figure: str) -> str:
    known = gap.difference.interval
    return (
        f"{gap.method} less {gap.less}: {known.mean:+.4f} {figure}, 95 % of resampled query sets "
        f"within {known.low:+.4f} and {known.high:+.4f}; p = {gap.difference.p_value:.2g}."
    )


def _row(method: MethodFigures, figure: str) -> tuple[str, ...]:
    controls = (method.controls.get(name) for name in _CONTROLS)
    return (
        method.name,
        str(len(method.runs)),
        _spread(method.figures.get(figure)),
        _spread(method.mrr),
        *("" if value is None else f"{value:.3f}" for value in controls),
    )


def _spread(value: Spread | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.3f}" + ("" if value.deviation is None else f" ± {value.deviation:.3f}")


def _by_bits(methods: Sequence[MethodFigures]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return method without its bits -> bits -> mean and deviation of mAP."""
    curves: dict[str, dict[int, tuple[float, float]]] = {}
    for method in methods:
        if method.map is not None:
            name = _BITS.sub("", method.name)
            score = method.map.mean, method.map.deviation or 0.0
            curves.setdefault(name, {})[method.bits] = score
    return curves
