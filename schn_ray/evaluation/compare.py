"""Compare runs: mean and deviation over seeds, and whether a difference could be chance.

Runs that differ in nothing but their seed are one method. Two methods are compared query by query:
each method's average precision of a query is averaged over its seeds, and the difference is judged
by the paired bootstrap over queries. So the p-value covers other queries; the deviation over seeds
covers another training.

Where a run has no mAP, as in a store without labels, recall of the exact nearest rows takes its
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import flattened
from schn_ray.evaluation.figures import Figures, NeighbourRecall
from schn_ray.evaluation.metrics.bootstrap import Difference, Interval, paired_difference
from schn_ray.evaluation.results import find_evaluation, read_figures, read_queries

_CONTROLS = ("classifier", "cosine", "itq", "pca_rotation", "lsh", "random")
_SHOWN = ("classifier", "cosine", "itq")
MAP = "map"


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a method.

    Attributes:
        mean: over the seeds.
        deviation: standard deviation of the sample; None for one seed.
    """

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class MethodFigures:
    """Runs that differ in nothing but their seed.

    Attributes:
        name: what sets it apart from the other methods.
        bits: bits of its codes.
        runs: names.
        seeds: of training; None where a run does not record one.
        figures: name -> its spread over the runs, where all of them have it.
        controls: name -> the mean of a control's figure over the runs: mAP, or what takes its
            place in the comparison.
    """

    name: str
    bits: int
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    figures: dict[str, Spread]
    controls: dict[str, float]

    @property
    def map(self) -> Spread | None:
        """Mean average precision; None where a run has none."""
        return self.figures.get(MAP)

    @property
    def mrr(self) -> Spread | None:
        """Mean reciprocal rank; None where a run has none."""
        return self.figures.get("mrr")


@dataclass(frozen=True)
class Gap:
    """The figure of ``method`` minus that of ``less``, over the same queries."""

    method: str
    less: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Methods that were measured on the same queries and gallery.

    Attributes:
        queries: how many.
        gallery: rows.
        gallery_codes: how they were made.
        protocol: of the split.
        methods: in the order of their first run.
        gaps: every other method minus the first.
        figure: what gaps and controls are of, a key of ``MethodFigures.figures``: ``map``, or a
            recall such as ``recall 10@10`` where a run has no mAP.
    """

    queries: int
    gallery: int
    gallery_codes: str
    protocol: str
    methods: tuple[MethodFigures, ...]
    gaps: tuple[Gap, ...]
    figure: str = MAP

    @property
    def figure_name(self) -> str:
        """The figure in words."""
        return "mAP" if self.figure == MAP else self.figure


@dataclass(frozen=True, eq=False)
class _Evaluated:
    path: Path
    figures: Figures
    per_query: dict[str, NDArray[np.float64]]


def compare_runs(paths: Sequence[Path | str]) -> Comparison:
    """Compare evaluations.

    Args:
        paths: evaluations, or runs next to which they lie.

    Raises:
        SchnRayError: one is missing, given twice, or was measured on other queries, another
            gallery or other gallery codes than the first.
    """
    evaluated = [_read(find_evaluation(path)) for path in paths]
    _refuse_repeated(evaluated)
    for other in evaluated[1:]:
        _refuse_other_ground(evaluated[0], other)
    groups = _groups(evaluated)
    recall = _common_recall(evaluated)
    figure = recall.name if recall else MAP
    methods = tuple(_method(name, runs, figure) for name, runs in groups.items())
    first, *others = groups
    values = {name: _over_seeds(runs, _column(recall)) for name, runs in groups.items()}
    figures = evaluated[0].figures
    return Comparison(
        queries=figures.queries,
        gallery=figures.gallery,
        gallery_codes=figures.gallery_codes,
        protocol=figures.protocol,
        methods=methods,
        gaps=tuple(
            Gap(name, first, gap)
            for name in others
            if (gap := paired_difference(values[first], values[name]))
        ),
        figure=figure,
    )


def as_table(comparison: Comparison) -> str:
    """Return a comparison as lines of text.

    Args:
        comparison: what ``compare`` returned.
    """
    lines = [
        f"{comparison.queries:,} queries, {comparison.gallery:,} gallery images, gallery codes: "
        f"{comparison.gallery_codes}, protocol {comparison.protocol}"
    ]
    width = max(len(method.name) for method in comparison.methods)
    names = "  ".join(f"{name:10}" for name in _SHOWN)
    lines.append(f"  {'':{width}}  runs  {comparison.figure_name:15}  {names}".rstrip())
    for method in comparison.methods:
        controls = "  ".join(
            f"{method.controls[name]:.4f}    " if name in method.controls else "-         "
            for name in _SHOWN
        )
        score = _mean_and_deviation(method.figures.get(comparison.figure))
        lines.append(
            f"  {method.name:{width}}  {len(method.runs):4}  {score:15}  {controls}".rstrip()
        )
    for gap in comparison.gaps:
        known = gap.difference.interval
        lines.append(
            f"  {gap.method} less {gap.less}: {known.mean:+.4f} "
            f"[{known.low:+.4f}, {known.high:+.4f}], p = {gap.difference.p_value:.3g}"
        )
    if comparison.gaps:
        lines.append("  (paired bootstrap over queries, 95 %; seeds averaged query by query)")
    return "\n".join(lines)


def _mean_and_deviation(spread: Spread | None) -> str:
    if spread is None:
        return "undefined"
    return f"{spread.mean:.4f}" + (
        "" if spread.deviation is None else f" +- {spread.deviation:.4f}"
    )


def _read(path: Path) -> _Evaluated:
    _, per_query = read_queries(path)
    return _Evaluated(path, read_figures(path), per_query)


def _common_recall(evaluated: Sequence[_Evaluated]) -> NeighbourRecall | None:
    """Return the recall that stands for mAP where a run has none; None where all have mAP."""
    recall = evaluated[0].figures.main_recall
    if recall is None or all(one.figures.map is not None for one in evaluated):
        return None
    return recall if all(_column(recall) in one.per_query for one in evaluated) else None


def _column(recall: NeighbourRecall | None) -> str:
    """Return the name of a figure of each query."""
    return "average_precision" if recall is None else recall.column


def _refuse_repeated(evaluated: Sequence[_Evaluated]) -> None:
    seen: set[Path] = set()
    for one in evaluated:
        if one.path.resolve() in seen:
            raise SchnRayError(f"{one.path} is given twice; name each run once")
        seen.add(one.path.resolve())


def _refuse_other_ground(first: _Evaluated, other: _Evaluated) -> None:
    ours, theirs = first.figures, other.figures
    for differs, what in (
        (ours.queries_sha256 != theirs.queries_sha256, "other queries"),
        (ours.gallery_sha256 != theirs.gallery_sha256, "another gallery"),
        (ours.gallery_codes != theirs.gallery_codes, "gallery codes of another kind"),
    ):
        if differs:
            raise SchnRayError(
                f"{other.path} was measured with {what} than {first.path}, so their figures cannot "
                "be compared: evaluate both on one store, with one kind of gallery codes"
            )


def _groups(evaluated: Sequence[_Evaluated]) -> dict[str, list[_Evaluated]]:
    """Return name -> runs that differ only in their seed."""
    settings = [flattened(one.figures.trained) for one in evaluated]
    keys = list(dict.fromkeys(key for each in settings for key in each if key != "seed"))
    varying = [key for key in keys if len({str(each.get(key)) for each in settings}) > 1]
    groups: dict[str, list[_Evaluated]] = {}
    for one, each in zip(evaluated, settings, strict=True):
        # a model without a run has no settings, and goes by its name
        parts = [f"{key}={each.get(key)}" for key in varying if key != "bits"]
        if not each:
            parts = [one.figures.run]
        name = ", ".join([f"{one.figures.bits} bits", *parts])
        groups.setdefault(name, []).append(one)
    return groups


def _method(name: str, runs: Sequence[_Evaluated], figure: str) -> MethodFigures:
    evaluations = [run.figures for run in runs]
    return MethodFigures(
        name=name,
        bits=evaluations[0].bits,
        runs=tuple(figures.run for figures in evaluations),
        seeds=tuple(figures.trained.get("seed") for figures in evaluations),
        figures=_spreads(evaluations),
        controls=_control_means([_scores(figures, figure) for figures in evaluations]),
    )


def _spreads(evaluations: Sequence[Figures]) -> dict[str, Spread]:
    """Return name -> spread of each figure that all evaluations have."""
    tables = [_by_name(figures) for figures in evaluations]
    known = {
        name: [value for table in tables if (value := table.get(name)) is not None]
        for name in tables[0]
    }
    return {name: _spread(values) for name, values in known.items() if len(values) == len(tables)}


def _scores(figures: Figures, figure: str) -> dict[str, Interval | None]:
    """Return name -> a figure of each control; empty where it was not measured."""
    if figures.controls is None:
        return {}
    if figure == MAP:
        return figures.controls.scores
    return next((each.scores for each in figures.controls.recall if each.name == figure), {})


def _control_means(evaluations: Sequence[dict[str, Interval | None]]) -> dict[str, float]:
    """Return name -> mean of the figure of each control that all evaluations have."""
    means: dict[str, float] = {}
    for name in _CONTROLS:
        known = [score for scores in evaluations if (score := scores.get(name))]
        if len(known) == len(evaluations):
            means[name] = float(np.mean([score.mean for score in known]))
    return means


def _by_name(figures: Figures) -> dict[str, float | None]:
    """Return name -> value of each figure of a table."""
    recall = figures.controls.recall if figures.controls else ()
    return (
        {
            MAP: figures.map,
            "mrr": figures.mrr,
            "precision_within_radius": figures.precision_within_radius,
        }
        | {f"map@{k}, hits": at.hits for k, at in figures.map_at.items()}
        | {f"precision@{k}": value for k, value in figures.precision_at.items()}
        | {f"ndcg@{k}": value for k, value in figures.ndcg_at.items()}
        | {each.name: each.model.mean for each in recall}
    )


def _spread(values: list[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation)


def _over_seeds(runs: Sequence[_Evaluated], column: str) -> NDArray[np.float64]:
    return np.asarray(np.mean([run.per_query[column] for run in runs], axis=0))
