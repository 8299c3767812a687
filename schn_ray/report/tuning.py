"""The page of a tuning study: its trials, the settings that matter, its cost and its winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from schn_ray.report.contents import facts
from schn_ray.report.dashboard import write_dashboard
from schn_ray.report.diagrams import Diagram
from schn_ray.report.draw_tuning import Panel
from schn_ray.report.drawn import drawn
from schn_ray.report.folds import Fold
from schn_ray.report.page import write_page
from schn_ray.report.tuning_panels import (
    contours,
    fronts,
    history,
    hypervolume_history,
    importance_bars,
    parallel,
    rung_chart,
    score_of,
    slice_of,
)
from schn_ray.report.tuning_tables import changes, rung_table, trial_table_of
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
from schn_ray.tuning.rows import TrialRow, ranked
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial_settings import METHOD_NAME, OF_METHOD

REPORT = "report.html"
_STATES = (
    ("complete", "complete"),
    ("pruned", "stopped early"),
    ("infeasible", "infeasible"),
    ("failed", "failed"),
    ("running", "unfinished"),
)


def report_search(out: Path, name: str, search: Search, confirmed: Confirmation | None) -> None:
    """Write ``report.html`` of a study, and its copy for ``optuna-dashboard``.

    Args:
        out: the study's directory.
        name: of the study, for the title.
        search: the study.
        confirmed: the winner against the baseline; None if it was not confirmed.
    """
    rows, best = search.rows(), best_rows(search, confirmed)
    shares = importances(search)
    order = _by_importance(search, shares)
    table = trial_table_of(search.space, rows, order, {row.number for row in best})
    folds = [fold for fold in _folds(search, rows, shares) if not fold.is_empty]
    space = {"space": search.space.model_dump(mode="json", exclude_defaults=True)}
    provenance = facts(space | search.base.to_json() | {"seed": search.seed})
    made_from = Fold("made-from", "Made from", facts=provenance)
    write_page(
        out / REPORT,
        "tuning.html.jinja",
        title=f"{name}: a search over {len(search.space.parameters)} settings",
        lead=_lead(search, rows, best) if best else None,
        verdict=study_verdict(search, confirmed),
        gains=_gains(confirmed),
        changes=changes(search.space, rows, best, order) if best else None,
        front=trial_table_of(search.space, best, order, set())
        if search.space.multi_objective
        else None,
        tiles=_tiles(search, rows, confirmed),
        figures=[drawn(panel) for panel in _open_panels(search, rows, shares)],
        folds=folds,
        table=table,
        made_from=made_from,
        links=[
            ("figures", "Figures"),
            *((fold.key, fold.title) for fold in folds),
            ("trials", "All trials"),
            ("made-from", "Made from"),
        ],
    )
    write_dashboard(out, search, confirmed, out / REPORT)


def study_panels(search: Search, rows: Sequence[TrialRow]) -> list[Panel | Diagram]:
    """Return every diagram of a search, in the order of its page.

    Args:
        search: the study.
        rows: its trials.

    Returns:
        None of them before the first trial is complete.
    """
    shares = importances(search)
    folded = _folded_panels(search, rows, shares).values()
    return [*_open_panels(search, rows, shares), *(p for panels in folded for p in panels)]


def _by_importance(search: Search, shares: Mapping[str, float]) -> list[str]:
    """Return all settings of the space, the most important first."""
    return sorted(search.space.parameters, key=lambda key: -shares.get(key, 0.0))


def _open_panels(
    search: Search, rows: Sequence[TrialRow], shares: Mapping[str, float]
) -> list[Panel | Diagram]:
    if not any(row.state == "complete" for row in rows):
        return []
    objectives = search.space.objectives
    multi_objective = search.space.multi_objective
    bars = importance_bars(shares, multi_objective)
    panels: list[Panel | Diagram | None] = (
        [*fronts(rows, objectives), hypervolume_history(rows, objectives), bars]
        if multi_objective
        else [history(rows), bars, *(slice_of(search.space, key, rows) for key in [*shares][:1])]
    )
    return [panel for panel in panels if panel is not None]


def _folded_panels(
    search: Search, rows: Sequence[TrialRow], shares: Mapping[str, float]
) -> dict[str, list[Panel | Diagram]]:
    """Return the diagrams of each fold."""
    if not any(row.state == "complete" for row in rows):
        return {}
    space = search.space
    varied = [
        key
        for key in _shown_parameters(_by_importance(search, shares), rows)
        if len({str(row.values.get(key)) for row in rows}) > 1
    ]
    rungs, shown = rung_chart(space, rows), () if space.multi_objective else [*shares][:1]
    return {
        "History": [history(rows)] if space.multi_objective else [],
        "Parallel coordinates": [parallel(space, varied, rows)] if len(varied) > 1 else [],
        "Slices": [slice_of(space, key, rows) for key in varied if key not in shown],
        "Contours": [*contours(space, varied, rows)],
        "Rungs": [] if rungs is None else [rungs],
    }


def _shown_parameters(order: Sequence[str], rows: Sequence[TrialRow]) -> list[str]:
    """Return the parameters of all trials, and those of the best trial's method."""
    method = ranked(rows)[0].values.get(METHOD_NAME)
    return [key for key in order if key.partition(OF_METHOD)[2] in ("", method)]


def _folds(search: Search, rows: Sequence[TrialRow], shares: Mapping[str, float]) -> list[Fold]:
    return [
        Fold(
            title.split()[0].lower(),
            title,
            wide_table=rung_table(search.space, rows) if title == "Rungs" else (),
            figures=[drawn(panel) for panel in panels],
        )
        for title, panels in _folded_panels(search, rows, shares).items()
    ]


def _lead(search: Search, rows: Sequence[TrialRow], best: Sequence[TrialRow]) -> str:
    if search.space.multi_objective:
        names = " or ".join(OBJECTIVES[name].title for name in search.space.objectives)
        count = f"{len(best)} trials are" if len(best) > 1 else "One trial is"
        return (
            f"{count} on the Pareto front: no other trial is better in {names} without being worse "
            "in another."
        )
    score = best[0].figures[VALIDATION_MAP]
    first = _score_of(rows, BASELINE)
    if best[0].number == BASELINE:
        return f"The first trial is the best, with validation mAP {score:.4f}."
    return (
        f"Trial {best[0].number} is the best, with validation mAP {score:.4f}; the first trial has "
        f"{first}."
    )


def _tiles(
    search: Search, rows: Sequence[TrialRow], confirmed: Confirmation | None
) -> list[tuple[str, str, str]]:
    states: list[str] = [row.state for row in rows]
    counts = ", ".join(
        f"{states.count(state)} {name}" for state, name in _STATES if states.count(state)
    )
    tiles = [("Trials", f"{sum(row.is_counted for row in rows)}", counts)]
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


def _score_of(rows: Sequence[TrialRow], number: int) -> str:
    score = next((score_of(row) for row in rows if row.number == number), None)
    return f"{score:.4f}" if score is not None else "failed"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
