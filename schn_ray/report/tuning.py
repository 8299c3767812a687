"""The page of a search: what was tried, what mattered, what it cost and how sure the winner is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from schn_ray.report.charts import Chart, Curve
from schn_ray.report.draw_tuning import Bars, Dots, Panel, Parallel, Point, TuningScatter
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
from schn_ray.tuning.space import Domain
from schn_ray.tuning.study import Search, TrialRow, front, ranked

REPORT = "report.html"
_MOST_LISTED = 200  # trials in the table of the page; trials.csv has all


def report_search(out: Path, name: str, search: Search, confirmed: Confirmation | None) -> None:
    """Write ``report.html`` into a search's directory; ``name`` is what the search is called."""
    rows = search.rows()
    write_tuning_page(
        out / REPORT,
        title=f"{name}: a search over {len(search.space.parameters)} settings",
        tiles=_tiles(search, rows, confirmed),
        verdict=study_verdict(search, confirmed),
        gains=_gains(confirmed),
        panels=panels(search, rows),
        charts=[chart for chart in [_rungs(search, rows)] if chart is not None],
        table=_table(search, rows, {row.number for row in best_rows(search, confirmed)}),
        provenance={"space": search.space.model_dump(mode="json", exclude_defaults=True)}
        | {"base": search.base.model_dump(mode="json"), "seed": search.seed},
    )


def panels(search: Search, rows: Sequence[TrialRow]) -> list[Panel]:
    """Return what is drawn: history, front, importance, parallel axes, a slice a setting."""
    complete = [row for row in rows if row.state == "complete"]
    if not complete:
        return []
    found: list[Panel] = [_history(search, rows)]
    if search.space.multi_objective:
        found += _fronts(search, complete)
    found += [b for name in search.space.objectives if (b := _importance(search, name))]
    found.append(_parallel(search, complete))
    found += [_slice(search, key, rows) for key in search.space.parameters]
    return found


def _history(search: Search, rows: Sequence[TrialRow]) -> TuningScatter:
    complete = _points(rows, "complete", lambda row: row.number)
    best = tuple(accumulate(complete, lambda a, b: (b[0], max(a[1], b[1]))))
    return TuningScatter(
        "History",
        "Validation mAP of each trial, in the order in which they began. Stopped ones are shown "
        "with the best that they had reached. The line is the best so far.",
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
    found: list[Panel] = []
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
        found.append(TuningScatter(title, caption, OBJECTIVES[name].title, "validation mAP", dots))
    return found


def _importance(search: Search, objective: str) -> Bars | None:
    shares = importances(search, objective)
    if not shares:
        return None
    caption = (
        f"Share of each setting in the differences of {OBJECTIVES[objective].title} between the "
        "complete trials (fANOVA). Settings that only some trials have are left out; of few "
        "trials it is a hint, no more."
    )
    title = "What mattered" + (
        f": {OBJECTIVES[objective].title}" if search.space.multi_objective else ""
    )
    return Bars(title, caption, "share", tuple(shares.items()))


def _parallel(search: Search, complete: Sequence[TrialRow]) -> Parallel:
    scores = [row.figures[VALIDATION_MAP] for row in complete]
    low, high = min(scores), max(scores)
    best = {row.number for row in front(complete, search.space.objectives)}
    lines = []
    for row, score in zip(complete, scores, strict=True):
        heights = tuple(
            _height(domain, row.values[key]) if key in row.values else None
            for key, domain in search.space.parameters.items()
        )
        share = (score - low) / (high - low) if high > low else 0.0
        lines.append((heights, 1.0 if row.number in best else min(share, 0.99)))
    axes = tuple(
        (key, _shown(domain.ends[0]), _shown(domain.ends[-1]))
        for key, domain in search.space.parameters.items()
    )
    caption = (
        "A line a complete trial, from one end of each setting's range to the other; the stronger "
        "the line, the better the trial. Orange: the best"
    ) + (" ones, the Pareto front." if search.space.multi_objective else ".")
    return Parallel("Parallel coordinates", caption, axes, tuple(lines))


def _slice(search: Search, key: str, rows: Sequence[TrialRow]) -> TuningScatter:
    domain = search.space.parameters[key]
    with_it = [row for row in rows if key in row.values]

    def place(row: TrialRow) -> float:
        return _place(domain, row.values[key])

    condition = "".join(
        f" Only where {other} is {_shown(allowed)}." for other, allowed in domain.when.items()
    )
    return TuningScatter(
        key,
        f"Validation mAP over {key}, all other settings as they came.{condition}",
        key,
        "validation mAP",
        (
            Dots("complete", _points(with_it, "complete", place)),
            Dots("stopped early", _points(with_it, "pruned", place), "hollow"),
        ),
        log_x=domain.log is not None,
        names=tuple(_shown(c) for c in domain.choices or ()),
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
        f"How many trials trained so long. Judged after {pruning.grace} iterations and then at "
        f"each {pruning.factor}-fold: who is among the best 1/{pruning.factor} goes on."
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
    note = "start of Ray not counted" + (f"; in {sittings} goes" if sittings > 1 else "")
    tiles = [("Time", _clock(seconds), note)]
    planned = sum(planned_iterations(search, r) for r in rows if r.state in ("complete", "pruned"))
    if search.space.pruning and planned:
        saved = iterations_saved(search)
        note = f"{saved} of {planned} iterations not run"
        tiles.append(("Saved by stopping early", f"{saved / planned:.0%}", note))
    beside = seconds_outside_training(search)
    if beside is not None:
        tiles.append(("Beside training", f"{beside:.1f} s", "a trial: processes, files, waiting"))
    return tiles


def _gains(confirmed: Confirmation | None) -> list[tuple[str, str, str, str, str]]:
    if confirmed is None:
        return []
    measured = (("validation", confirmed.validation), ("test queries", confirmed.queries))
    return [(name, *_gain(gain)) for name, gain in measured if gain is not None]


def _gain(gain: Gain) -> tuple[str, str, str, str]:
    interval = f"{gain.low:+.4f} to {gain.high:+.4f}"
    return f"{gain.baseline:.4f}", f"{gain.winner:.4f}", f"{gain.mean:+.4f}", interval


def _table(search: Search, rows: Sequence[TrialRow], best: set[int]) -> dict[str, Any]:
    parameters, objectives = list(search.space.parameters), list(search.space.objectives)
    order = {row.number: place for place, row in enumerate(ranked(rows))}
    listed = sorted(rows, key=lambda row: (order.get(row.number, len(rows)), row.number))
    lines = []
    for row in listed[:_MOST_LISTED]:
        figures = [_shown(row.figures[n]) if n in row.figures else "" for n in objectives]
        values = [_shown(row.values[key]) if key in row.values else "" for key in parameters]
        cells = [f"{row.number}", row.state, *figures, f"{row.iterations}", *values, row.reason]
        lines.append({"best": row.number in best, "cells": cells})
    heads = ["trial", "state", *(OBJECTIVES[n].title for n in objectives), "iterations"]
    return {"heads": [*heads, *parameters, "reason"], "rows": lines, "left_out": len(rows[200:])}


def _points(rows: Iterable[TrialRow], state: str, place: Any) -> tuple[Point, ...]:
    found = [
        (float(place(r)), s) for r in rows if r.state == state and (s := _score(r)) is not None
    ]
    return tuple(found)


def _score(row: TrialRow) -> float | None:
    if row.figures:
        return row.figures[VALIDATION_MAP]
    return max(row.curve.values(), default=None)


def _score_of(rows: Sequence[TrialRow], number: int) -> str:
    score = next((_score(row) for row in rows if row.number == number), None)
    return f"{score:.4f}" if score is not None else "failed"


def _place(domain: Domain, value: Any) -> float:
    if domain.choices is not None:
        shown = [json.dumps(choice) for choice in domain.choices]
        return float(shown.index(json.dumps(value)))
    return float(value)


def _wider(domain: Domain) -> Point | None:
    """Return the range of a setting's axis: all of its domain, so that gaps are seen."""
    if domain.choices is not None:
        return None
    low, high = (float(end) for end in domain.ends)
    if domain.log is not None:
        edge = (high / low) ** 0.03
        return low / edge, high * edge
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def _height(domain: Domain, value: Any) -> float:
    low, high = (_place(domain, end) for end in (domain.ends[0], domain.ends[-1]))
    here = _place(domain, value)
    if domain.log is not None:
        low, high, here = math.log(low), math.log(high), math.log(here)
    return (here - low) / (high - low)


def _shown(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else (value if isinstance(value, str) else json.dumps(value))
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
