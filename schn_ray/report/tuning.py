"""The page of a tuning study: its trials, the settings that matter, its cost and its winner."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from schn_ray.report.charts import Chart, Curve
from schn_ray.report.diagrams import Bar, Bars
from schn_ray.report.draw_tuning import Dots, Panel, Parallel, Point, TuningScatter
from schn_ray.report.page import write_tuning_page
from schn_ray.tuning.confirm import BASELINE, Confirmation, Gain
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.results import (
    best_rows,
    importances,
    iterations_saved,
    planned_iterations,
    seconds_outside_training,
    study_verdict,
)
from schn_ray.tuning.rows import TrialRow, front, ranked
from schn_ray.tuning.space import Domain
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial_settings import METHOD_NAME, OF_METHOD

REPORT = "report.html"
_MOST_LISTED = 200  # trials in the table of the page; trials.csv lists all


def report_search(out: Path, name: str, search: Search, confirmed: Confirmation | None) -> None:
    """Write ``report.html`` of a study.

    Args:
        out: the study's directory.
        name: of the study, for the title.
        search: the study.
        confirmed: the winner against the baseline; None if it was not confirmed.
    """
    rows = search.rows()
    write_tuning_page(
        out / REPORT,
        title=f"{name}: a search over {len(search.space.parameters)} settings",
        tiles=_tiles(search, rows, confirmed),
        verdict=study_verdict(search, confirmed),
        gains=_gains(confirmed),
        panels=study_panels(search, rows),
        charts=[chart for chart in [_rungs(search, rows)] if chart is not None],
        table=_table(search, rows, {row.number for row in best_rows(search, confirmed)}),
        provenance={"space": search.space.model_dump(mode="json", exclude_defaults=True)}
        | search.base.to_json()
        | {"seed": search.seed},
    )


def study_panels(search: Search, rows: Sequence[TrialRow]) -> list[Panel | Bars]:
    """Return the diagrams: history, front, importance, parallel axes, one slice a setting.

    Args:
        search: the study.
        rows: its trials.

    Returns:
        None of them before the first trial is complete.
    """
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        return []
    panels: list[Panel | Bars] = [_history(search, rows)]
    if search.space.multi_objective:
        panels += _fronts(search, complete)
    panels += [b for name in search.space.objectives if (b := _importance(search, name))]
    shown = _shown_parameters(search, complete)
    panels.append(_parallel(search, complete, shown))
    panels += [_slice(search, key, rows) for key in shown]
    return panels


def _shown_parameters(search: Search, complete: Sequence[TrialRow]) -> list[str]:
    """Return the parameters of all trials, and those of the best trial's method."""
    method = ranked(complete)[0].values.get(METHOD_NAME)
    return [key for key in search.space.parameters if key.partition(OF_METHOD)[2] in ("", method)]


def _history(search: Search, rows: Sequence[TrialRow]) -> TuningScatter:
    complete = _points(rows, "complete", lambda row: row.number)
    best = tuple(accumulate(complete, lambda a, b: (b[0], max(a[1], b[1]))))
    return TuningScatter(
        "History",
        "Validation mAP of each trial, in the order of their start. A trial that was stopped early "
        "is shown with its best value. The line is the best so far.",
        "trial",
        "validation mAP",
        (
            Dots("complete", complete),
            Dots("stopped early", _points(rows, "pruned", lambda row: row.number), "hollow"),
            Dots("best", best, "line"),
        ),
        whole_x=True,
    )


def _fronts(search: Search, complete: Sequence[TrialRow]) -> list[Panel]:
    best = {row.number for row in front(complete, search.space.objectives)}
    fronts: list[Panel] = []
    for name in search.space.objectives:
        if name == VALIDATION_MAP:
            continue
        points = {row.number: (row.figures[name], row.figures[VALIDATION_MAP]) for row in complete}
        caption = (
            "Full dots are the Pareto front: no other trial is better in one of the objectives "
            "and at least as good in the others. Their settings are in pareto/."
        )
        on = tuple(sorted(p for number, p in points.items() if number in best))
        off = tuple(p for number, p in points.items() if number not in best)
        dots = (Dots("Pareto front", on), Dots("other trials", off, "hollow"))
        title = f"Front: validation mAP and {OBJECTIVES[name].title}"
        fronts.append(TuningScatter(title, caption, OBJECTIVES[name].title, "validation mAP", dots))
    return fronts


def _importance(search: Search, objective: str) -> Bars | None:
    shares = importances(search, objective)
    if not shares:
        return None
    caption = (
        f"Share of each setting in the variance of {OBJECTIVES[objective].title} over the complete "
        "trials (fANOVA). Settings that not every trial has are left out. With few trials it is "
        "only a hint."
    )
    title = "What mattered" + (
        f": {OBJECTIVES[objective].title}" if search.space.multi_objective else ""
    )
    bars = tuple(Bar(name, share) for name, share in shares.items())
    return Bars(title, caption, "share", bars, "setting")


def _parallel(search: Search, complete: Sequence[TrialRow], shown: list[str]) -> Parallel:
    scores = [row.figures[VALIDATION_MAP] for row in complete]
    low, high = min(scores), max(scores)
    best = {row.number for row in front(complete, search.space.objectives)}
    domains = {key: search.space.parameters[key] for key in shown}
    lines = []
    for row, score in zip(complete, scores, strict=True):
        heights = tuple(
            _height(domain, row.values[key]) if key in row.values else None
            for key, domain in domains.items()
        )
        share = (score - low) / (high - low) if high > low else 0.0
        lines.append((heights, 1.0 if row.number in best else min(share, 0.99)))
    axes = tuple(
        (key, _text(domain.ends[0]), _text(domain.ends[-1])) for key, domain in domains.items()
    )
    caption = (
        "One line a complete trial; each axis is the range of a setting. The stronger the line, "
        "the better the trial. Orange: the best"
    ) + (" trials, the Pareto front." if search.space.multi_objective else " trial.")
    return Parallel("Parallel coordinates", caption, axes, tuple(lines))


def _slice(search: Search, key: str, rows: Sequence[TrialRow]) -> TuningScatter:
    domain = search.space.parameters[key]
    with_it = [row for row in rows if key in row.values]

    def position(row: TrialRow) -> float:
        return _position(domain, row.values[key])

    condition = "".join(
        f" Only where {other} is {_text(allowed)}." for other, allowed in domain.when.items()
    )
    return TuningScatter(
        key,
        f"Validation mAP over {key}, whatever the other settings are.{condition}",
        key,
        "validation mAP",
        (
            Dots("complete", _points(with_it, "complete", position)),
            Dots("stopped early", _points(with_it, "pruned", position), "hollow"),
        ),
        log_x=domain.log is not None,
        names=tuple(_text(c) for c in domain.choices or ()),
        x_range=_wider(domain),
    )


def _rungs(search: Search, rows: Sequence[TrialRow]) -> Chart | None:
    reached = [row.iterations for row in rows if row.state in ("complete", "pruned")]
    if search.space.pruning is None or not reached:
        return None
    pruning = search.space.pruning
    points = tuple(
        (float(t), float(sum(r >= t for r in reached))) for t in range(1, max(reached) + 1)
    )
    caption = (
        f"How many trials trained for so many iterations. After {pruning.grace} iterations, and at "
        f"every {pruning.factor}-fold of it, the best 1/{pruning.factor} of the trials go on."
    )
    return Chart("Trials at each rung", caption, "outer iteration", "trials", (Curve("", points),))


def _tiles(
    search: Search, rows: Sequence[TrialRow], confirmed: Confirmation | None
) -> list[tuple[str, str, str]]:
    states: list[str] = [row.state for row in rows]
    counts = ", ".join(
        f"{states.count(state)} {name}"
        for state, name in (
            ("complete", "complete"),
            ("pruned", "stopped early"),
            ("failed", "failed"),
            ("running", "unfinished"),
        )
        if states.count(state)
    )
    tiles = [("Trials", f"{len(rows)}", counts)]
    best = best_rows(search, confirmed)
    if best and not search.space.multi_objective:
        score = best[0].figures[VALIDATION_MAP]
        note = f"trial {best[0].number}; first trial " + _score_of(rows, BASELINE)
        tiles.insert(0, ("Validation mAP", f"{score:.4f}", note))
    elif best:
        tiles.insert(0, ("Pareto front", f"{len(best)}", "trials that no other beats"))
    return tiles + _cost(search, rows)


def _cost(search: Search, rows: Sequence[TrialRow]) -> list[tuple[str, str, str]]:
    seconds = sum(sitting["seconds"] for sitting in search.sessions())
    sittings = len(search.sessions())
    note = "start of Ray not counted" + (f"; in {sittings} sessions" if sittings > 1 else "")
    tiles = [("Time", _clock(seconds), note)]
    planned = sum(planned_iterations(search, r) for r in rows if r.state in ("complete", "pruned"))
    if search.space.pruning and planned:
        saved = iterations_saved(search)
        note = f"{saved} of {planned} iterations not run"
        tiles.append(("Saved by stopping early", f"{saved / planned:.0%}", note))
    overhead = seconds_outside_training(search)
    if overhead is not None:
        tiles.append(("Overhead", f"{overhead:.1f} s", "a trial: processes, files, waiting"))
    return tiles


def _gains(confirmed: Confirmation | None) -> list[tuple[str, str, str, str, str]]:
    if confirmed is None:
        return []
    compared = [("first trial", confirmed.validation, confirmed.queries)]
    if other := confirmed.runner_up:
        compared.append((other.method, other.validation, other.queries))
    return [
        (f"{rows}, from {rival}", *_gain(gain))
        for rival, validation, queries in compared
        for rows, gain in (("validation", validation), ("test queries", queries))
        if gain is not None
    ]


def _gain(gain: Gain) -> tuple[str, str, str, str]:
    interval = f"{gain.low:+.4f} to {gain.high:+.4f}"
    return f"{gain.baseline:.4f}", f"{gain.winner:.4f}", f"{gain.mean:+.4f}", interval


def _table(search: Search, rows: Sequence[TrialRow], best: set[int]) -> dict[str, Any]:
    parameters, objectives = list(search.space.parameters), list(search.space.objectives)
    order = {row.number: rank for rank, row in enumerate(ranked(rows))}
    listed = sorted(rows, key=lambda row: (order.get(row.number, len(rows)), row.number))
    lines = []
    for row in listed[:_MOST_LISTED]:
        figures = [_text(row.figures[n]) if n in row.figures else "" for n in objectives]
        values = [_text(row.values[key]) if key in row.values else "" for key in parameters]
        cells = [f"{row.number}", row.state, *figures, f"{row.iterations}", *values, row.reason]
        lines.append({"best": row.number in best, "cells": cells})
    heads = ["trial", "state", *(OBJECTIVES[n].title for n in objectives), "iterations"]
    return {
        "heads": [*heads, *parameters, "reason"],
        "rows": lines,
        "left_out": len(rows[_MOST_LISTED:]),
    }


def _points(
    rows: Iterable[TrialRow], state: str, x: Callable[[TrialRow], float]
) -> tuple[Point, ...]:
    return tuple(
        (float(x(row)), score)
        for row in rows
        if row.state == state and (score := _score(row)) is not None
    )


def _score(row: TrialRow) -> float | None:
    if row.figures:
        return row.figures[VALIDATION_MAP]
    return max(row.curve.values(), default=None)


def _score_of(rows: Sequence[TrialRow], number: int) -> str:
    score = next((_score(row) for row in rows if row.number == number), None)
    return f"{score:.4f}" if score is not None else "failed"


def _position(domain: Domain, value: Any) -> float:
    if domain.choices is not None:
        choices = [json.dumps(choice) for choice in domain.choices]
        return float(choices.index(json.dumps(value)))
    return float(value)


def _wider(domain: Domain) -> Point | None:
    """Return the range of a setting's axis: all of its domain, so that gaps are visible."""
    if domain.choices is not None:
        return None
    low, high = (float(end) for end in domain.ends)
    if domain.log is not None:
        edge = (high / low) ** 0.03
        return low / edge, high * edge
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def _height(domain: Domain, value: Any) -> float:
    low, high = (_position(domain, end) for end in (domain.ends[0], domain.ends[-1]))
    x = _position(domain, value)
    if domain.log is not None:
        low, high, x = math.log(low), math.log(high), math.log(x)
    return (x - low) / (high - low)


def _text(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else (value if isinstance(value, str) else json.dumps(value))
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
