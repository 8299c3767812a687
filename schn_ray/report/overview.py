"""The top of a report of two or more runs: a table of methods, and all their curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import PlotData
from schn_ray.report.charts import MOST_CURVES, precision_recall
from schn_ray.report.contents import OTHER_QUERIES, Example, Picture
from schn_ray.report.diagrams import Bar, Bars, Diagram, curves_at_ranks, map_by_bits

if TYPE_CHECKING:
    from schn_ray.evaluation.compare import Comparison, Gap, MethodFigures, Spread

_CONTROLS = {
    "classifier": "Classifier's codeword",
    "cosine": "Features by cosine",
    "itq": "ITQ of the features",
}
_SHARED_QUERIES, _SHARED_RUNS = 3, 6  # shown with the results of every run, and of how many runs
_MOST_BARS = 16
_TRAINED = re.compile(r"method\.name=([^,]+)")
_BITS = re.compile(r"^\d+ bits(?:, )?")


@dataclass(frozen=True)
class SharedQuery:
    """A query with the results of each run.

    Attributes:
        query: its image.
        results: (name of a run, the query with the run's results).
    """

    query: Picture
    results: tuple[tuple[str, Example], ...]


@dataclass(frozen=True)
class Overview:
    """The comparison on top of a report of two or more runs.

    Attributes:
        verdict: which method is best, and whether chance could have made it so.
        sentence: what was compared, and on what.
        header: of the table.
        rows: of the table, a method each.
        gaps: a sentence a difference between methods.
        diagrams: of all runs.
        queries: that all runs show.
        settings: (name, what sets it apart) of methods whose name was shortened.
    """

    verdict: str
    sentence: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    gaps: tuple[str, ...]
    diagrams: tuple[Diagram, ...]
    queries: tuple[SharedQuery, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def judged(self) -> bool:
        """Whether results are marked as right or wrong."""
        return any(one.verdict for shared in self.queries for _, one in shared.results)


def overview(
    comparison: Comparison,
    figures: Mapping[str, Figures],
    plots: Mapping[str, PlotData],
    examples: Mapping[str, Sequence[Example]],
) -> Overview:
    """Turn a comparison into sentences, a table and diagrams.

    Args:
        comparison: of all runs.
        figures: name of a run -> its figures; the curves of the first 12 are drawn.
        plots: name of a run -> the numbers of its diagrams.
        examples: name of a run -> the queries that it shows.
    """
    short = short_names(comparison.methods)
    long = [(short[each.name], each.name) for each in comparison.methods]
    comparison = _renamed(comparison, short)
    drawn = list(figures)[:MOST_CURVES]
    diagrams = [
        _bars(comparison, figures),
        map_by_bits(_by_bits(comparison.methods)),
        precision_recall({name: figures[name].pr_curve for name in drawn}),
        curves_at_ranks({name: plots[name].at for name in drawn}),
    ]
    runs = sum(len(method.runs) for method in comparison.methods)
    return Overview(
        verdict=_verdict(comparison),
        sentence=(
            f"{runs} runs, measured on the same {comparison.queries:,} queries against the same "
            f"{comparison.gallery:,} gallery images; gallery codes {comparison.gallery_codes}, "
            f"protocol {comparison.protocol}."
        ),
        header=("Method", "Seeds", comparison.figure_name, "MRR", *_CONTROLS.values()),
        rows=tuple(_row(method, comparison.figure) for method in comparison.methods),
        gaps=tuple(_gap(gap, comparison.figure_name) for gap in comparison.gaps),
        diagrams=tuple(diagram for diagram in diagrams if diagram is not None),
        queries=_shared(examples),
        settings=tuple(pair for pair in long if pair[0] != pair[1]),
    )


def short_names(methods: Sequence[MethodFigures]) -> dict[str, str]:
    """Return a name of each method that fits a line, by the name that says all.

    That is the name of what was trained, with its bits where they differ; else that of its run.

    Args:
        methods: of a comparison.

    Returns:
        The same names where there are no shorter ones that tell them apart.
    """
    bits = len({method.bits for method in methods}) > 1
    trained = [_TRAINED.search(method.name) for method in methods]
    by_method = [
        (f"{method.bits} bits, " if bits else "") + (match[1] if match else "")
        for method, match in zip(methods, trained, strict=True)
    ]
    by_run = [", ".join(method.runs) if len(method.runs) == 1 else "" for method in methods]
    names = [method.name for method in methods]
    for short in (by_method if all(trained) else [], by_run):
        if all(short) and len(set(short)) == len(names):
            return dict(zip(names, short, strict=True))
    return {name: name for name in names}


def _renamed(comparison: Comparison, names: Mapping[str, str]) -> Comparison:
    return replace(
        comparison,
        methods=tuple(replace(one, name=names[one.name]) for one in comparison.methods),
        gaps=tuple(
            replace(gap, method=names[gap.method], less=names[gap.less]) for gap in comparison.gaps
        ),
    )


def _verdict(comparison: Comparison) -> str:
    """Say which method is best, and which of the others these queries do not tell apart from it."""
    spreads = ((each.figures.get(comparison.figure), each.name) for each in comparison.methods)
    scored = [(spread.mean, name) for spread, name in spreads if spread is not None]
    if len(scored) < 2:
        return "These runs have no figure in common that says which is best."
    score, best = max(scored, key=lambda each: each[0])
    lead = f"{best} is best, with {comparison.figure_name} {score:.3f}"
    first = comparison.methods[0].name
    gaps = {gap.method: gap.difference.interval for gap in comparison.gaps}
    if best == first:
        tied = [name for name, gap in gaps.items() if gap.high >= 0]
        if tied:
            return f"{lead}. These queries do not tell {', '.join(tied)} apart from it."
        return f"{lead}; these queries tell all others apart from it."
    if best not in gaps:
        return f"{lead}."
    if gaps[best].low > 0:
        return f"{lead}; these queries tell it apart from {first}."
    return f"{lead}. These queries do not tell it apart from {first}."


def _bars(comparison: Comparison, figures: Mapping[str, Figures]) -> Bars | None:
    bars = []
    for method in comparison.methods[:_MOST_BARS]:
        score = method.figures.get(comparison.figure)
        if score is not None:
            one = figures.get(method.runs[0]) if len(method.runs) == 1 else None
            known = one.map_interval if one and comparison.figure == "map" else None
            interval = (known.low, known.high) if known else None
            bars.append(Bar(method.name, score.mean, interval))
    if not bars:
        return None
    longest = max(bar.value for bar in bars)
    bars = [replace(bar, strong=bar.value == longest) for bar in bars]
    caption = "Means over seeds. Lines are 95 % intervals over queries, of a method with one run."
    name = comparison.figure_name
    return Bars(f"The methods by {name}", caption, name, tuple(bars), "method", shares=True)


def _shared(examples: Mapping[str, Sequence[Example]]) -> tuple[SharedQuery, ...]:
    """Return the queries that all runs show, with each run's results."""
    if not examples:
        return ()
    of_run = {
        name: {one.query.id: one for one in shown}
        for name, shown in list(examples.items())[:_SHARED_RUNS]
    }
    first, *others = of_run.values()
    common = [id for id in first if all(id in other for other in others)]
    # the best and worst of one run say less of another
    common.sort(key=lambda id: sum(run[id].kind != OTHER_QUERIES for run in of_run.values()))
    return tuple(
        SharedQuery(first[id].query, tuple((name, of_run[name][id]) for name in of_run))
        for id in common[:_SHARED_QUERIES]
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
