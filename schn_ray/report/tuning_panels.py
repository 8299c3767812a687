"""The diagrams of a search: its history, its front, what mattered, where good values lie."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, combinations
from typing import Any

from schn_ray.report.charts import Chart, Curve
from schn_ray.report.diagrams import Bar, Bars
from schn_ray.report.draw_tuning import Axis, Contour, Dots, Parallel, Point, TuningScatter
from schn_ray.report.hypervolume import hypervolume
from schn_ray.tuning.objectives import BITS, OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.rows import TrialRow, front
from schn_ray.tuning.space import Domain, Space

_MOST_AXES = 12  # of parallel coordinates
_CONTOUR_SETTINGS = 3  # the most important ones; each pair of them has a contour
_CONTOUR_TRIALS = 6
_REFERENCE = 1.1  # times the worst figure: the reference point of the hypervolume


def history(rows: Sequence[TrialRow]) -> TuningScatter:
    """Return the validation mAP of each trial, and the best so far.

    Args:
        rows: the trials of a search.
    """
    complete = _points(rows, "complete", lambda row: row.number)
    best = tuple(accumulate(complete, lambda a, b: (b[0], max(a[1], b[1]))))
    return TuningScatter(
        "History",
        "Validation mAP of each trial, in the order of their start. A trial that was stopped early "
        "is shown with its best value. The line is the best so far.",
        Axis("trial", whole=True),
        "validation mAP",
        (*_dots(rows, lambda row: row.number), Dots("best", best, "line")),
    )


def fronts(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TuningScatter]:
    """Return validation mAP over each other objective, with the Pareto front.

    Args:
        rows: the trials.
        objectives: of the search.
    """
    complete = [row for row in rows if row.state == "complete"]
    best = {row.number for row in front(rows, objectives)}
    panels = []
    for name in objectives:
        if name == VALIDATION_MAP:
            continue
        points = {row.number: (row.figures[name], row.figures[VALIDATION_MAP]) for row in complete}
        trained = [row for row in rows if {name, VALIDATION_MAP} <= row.figures.keys()]
        outside = _points(trained, "infeasible", partial(_figure, name=name))
        caption = (
            "Full dots are the Pareto front: no other trial is better in one of the objectives "
            "and at least as good in the others. Their settings are in pareto/."
        )
        on = tuple(sorted(p for number, p in points.items() if number in best))
        off = tuple(p for number, p in points.items() if number not in best)
        dots = (
            Dots("Pareto front", on),
            Dots("other trials", off, "hollow"),
            Dots("infeasible", outside, "cross"),
        )
        title = f"Front: validation mAP and {OBJECTIVES[name].title}"
        axis = Axis(OBJECTIVES[name].title, whole=name == BITS)
        panels.append(TuningScatter(title, caption, axis, "validation mAP", dots))
    return panels


def hypervolume_history(rows: Sequence[TrialRow], objectives: Sequence[str]) -> Chart | None:
    """Return the hypervolume of the front over the iterations that all trials have trained.

    The reference point is validation mAP 0 and 1.1 times the worst of each other objective over
    the complete trials. The volume is given as a share of the box between this point and the best
    that one can imagine: mAP 1 at no cost.

    Args:
        rows: the trials.
        objectives: of the search, two or more.

    Returns:
        None with one objective, or before a trial is complete.
    """
    complete = [row for row in rows if row.state == "complete"]
    if len(objectives) < 2 or not complete:
        return None
    worst = {name: _REFERENCE * max(row.figures[name] for row in complete) for name in objectives}
    trained, reached = 0, list[tuple[float, ...]]()
    points: list[Point] = [(0.0, 0.0)]
    for row in sorted(rows, key=lambda row: (row.ended is None, row.ended, row.number)):
        trained += row.iterations
        if row.state == "complete":
            reached.append(tuple(_share(name, row.figures[name], worst) for name in objectives))
        points.append((float(trained), hypervolume(reached)))
    others = " and ".join(
        f"{worst[name]:.4g} {OBJECTIVES[name].title}"
        for name in objectives
        if name != VALIDATION_MAP
    )
    caption = (
        "The hypervolume of the front: its share of all that lies between the reference point, "
        f"mAP 0 and {others} ({_REFERENCE} times the worst of the complete trials), and mAP 1 at "
        "no cost. A search that has become flat has little left to find."
    )
    curve = (Curve("", tuple(points)),)
    return Chart("Hypervolume", caption, "iterations of all trials", "share", curve)


def _figure(row: TrialRow, name: str) -> float:
    return row.figures[name]


def _share(name: str, figure: float, worst: Mapping[str, float]) -> float:
    if OBJECTIVES[name].sign > 0:
        return figure
    return 1 - figure / worst[name] if worst[name] else 0.0


def importance_bars(shares: Mapping[str, float], multi_objective: bool) -> Bars | None:
    """Return how much each setting mattered for the best trials.

    Args:
        shares: setting -> share of 1.
        multi_objective: whether the search has several objectives.

    Returns:
        None where it is not known.
    """
    if not shares:
        return None
    what = "on the Pareto front" if multi_objective else "among the best trials"
    caption = (
        f"How far the values of each setting {what} differ from those of all complete trials, as "
        "a share (PED-ANOVA, Watanabe et al. 2023). With few trials it is only a hint."
    )
    bars = tuple(Bar(name, share) for name, share in shares.items())
    return Bars("What mattered", caption, "share", bars, "setting")


def parallel(space: Space, keys: Sequence[str], rows: Sequence[TrialRow]) -> Parallel:
    """Return a line a complete trial across one axis a setting.

    Args:
        space: of the search.
        keys: the settings, the most important first; at most 12 are drawn.
        rows: the trials, of which one is complete.
    """
    complete = [row for row in rows if row.state == "complete"]
    scores = [row.figures[VALIDATION_MAP] for row in complete]
    low, high = min(scores), max(scores)
    best = {row.number for row in front(complete, space.objectives)}
    domains = {key: space.parameters[key] for key in keys[:_MOST_AXES]}
    lines = []
    for row, score in zip(complete, scores, strict=True):
        heights = tuple(
            _height(domain, row.values[key]) if key in row.values else None
            for key, domain in domains.items()
        )
        share = (score - low) / (high - low) if high > low else 0.0
        lines.append((heights, 1.0 if row.number in best else min(share, 0.99)))
    axes = tuple(
        (key, value_text(domain.ends[0]), value_text(domain.ends[-1]))
        for key, domain in domains.items()
    )
    caption = (
        "One line a complete trial; each axis is the range of a setting. The stronger the line, "
        "the better the trial. Orange: the best"
    ) + (" trials, the Pareto front." if space.multi_objective else " trial.")
    return Parallel("Parallel coordinates", caption, axes, tuple(lines))


def slice_of(space: Space, key: str, rows: Sequence[TrialRow]) -> TuningScatter:
    """Return validation mAP over one setting.

    Args:
        space: of the search.
        key: the setting.
        rows: the trials.
    """
    domain = space.parameters[key]
    with_it = [row for row in rows if key in row.values]
    condition = "".join(
        f" Only where {other} is {value_text(allowed)}." for other, allowed in domain.when.items()
    )
    return TuningScatter(
        key,
        f"Validation mAP over {key}, whatever the other settings are.{condition}",
        _axis(key, domain),
        "validation mAP",
        _dots(with_it, lambda row: _position(domain, row.values[key])),
    )


def contours(space: Space, keys: Sequence[str], rows: Sequence[TrialRow]) -> list[Contour]:
    """Return validation mAP over each pair of the most important settings that are numbers.

    Args:
        space: of the search.
        keys: the settings, the most important first.
        rows: the trials.

    Returns:
        None of a pair that fewer than six complete trials have.
    """
    numbers = [key for key in keys if space.parameters[key].choices is None]
    panels = []
    for one, other in combinations(numbers[:_CONTOUR_SETTINGS], 2):
        points = {
            (float(row.values[one]), float(row.values[other]), row.figures[VALIDATION_MAP])
            for row in rows
            if row.state == "complete" and {one, other} <= row.values.keys()
        }
        if len(points) >= _CONTOUR_TRIALS:
            x, y = (_axis(key, space.parameters[key]) for key in (one, other))
            caption = (
                "Validation mAP, interpolated between the complete trials, which are the dots. "
                "What the other settings were is not seen."
            )
            title = f"{one} and {other}"
            panels.append(Contour(title, caption, x, y, tuple(sorted(points))))
    return panels


def rung_chart(space: Space, rows: Sequence[TrialRow]) -> Chart | None:
    """Return how many trials trained for how many iterations.

    Args:
        space: of the search.
        rows: the trials.

    Returns:
        None where trials are not stopped early.
    """
    reached = [row.iterations for row in rows if row.state in ("complete", "pruned")]
    if space.pruning is None or not reached:
        return None
    points = tuple(
        (float(t), float(sum(r >= t for r in reached))) for t in range(1, max(reached) + 1)
    )
    factor = space.pruning.factor
    caption = (
        "How many trials trained for so many iterations. After iteration "
        f"{space.pruning.grace}, and at every {factor}-fold of it, "
    ) + (
        f"a trial is stopped if 1/{factor} of the trials are in fronts before its own."
        if space.multi_objective
        else f"the best 1/{factor} of the trials go on."
    )
    return Chart("Trials at each rung", caption, "outer iteration", "trials", (Curve("", points),))


def _dots(rows: Sequence[TrialRow], x: Callable[[TrialRow], float]) -> tuple[Dots, ...]:
    return (
        Dots("complete", _points(rows, "complete", x)),
        Dots("stopped early", _points(rows, "pruned", x), "hollow"),
        Dots("infeasible", _points(rows, "infeasible", x), "cross"),
    )


def _points(
    rows: Iterable[TrialRow], state: str, x: Callable[[TrialRow], float]
) -> tuple[Point, ...]:
    return tuple(
        (float(x(row)), score)
        for row in rows
        if row.state == state and (score := score_of(row)) is not None
    )


def score_of(row: TrialRow) -> float | None:
    """Return the validation mAP of a trial, or its best until now; None if it has none.

    Args:
        row: the trial.
    """
    return row.figures.get(VALIDATION_MAP, max(row.curve.values(), default=None))


def _axis(key: str, domain: Domain) -> Axis:
    """Return the axis of a setting, with all of its domain, so that gaps are visible."""
    if domain.choices is not None:
        return Axis(key, names=tuple(value_text(choice) for choice in domain.choices))
    low, high = (float(end) for end in domain.ends)
    if domain.log is not None:
        edge = (high / low) ** 0.03
        return Axis(key, log=True, ends=(low / edge, high * edge))
    edge = 0.03 * (high - low)
    return Axis(key, ends=(low - edge, high + edge))


def _position(domain: Domain, value: Any) -> float:
    if domain.choices is not None:
        choices = [json.dumps(choice) for choice in domain.choices]
        return float(choices.index(json.dumps(value)))
    return float(value)


def _height(domain: Domain, value: Any) -> float:
    low, high = (_position(domain, end) for end in (domain.ends[0], domain.ends[-1]))
    x = _position(domain, value)
    if domain.log is not None:
        low, high, x = math.log(low), math.log(high), math.log(x)
    return (x - low) / (high - low) if high > low else 0.5


def value_text(value: Any) -> str:
    """Return the value of a setting, or a figure, as a page shows it.

    Args:
        value: a number, a text, or a list of them.

    >>> value_text(0.012345678), value_text(True), value_text("zeros")
    ('0.01235', 'true', 'zeros')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
