"""The tables of a search's page: trials by what varies, rungs, what the winner changes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from schn_ray.report.tuning_panels import value_text
from schn_ray.tuning.confirm import BASELINE
from schn_ray.tuning.objectives import OBJECTIVES
from schn_ray.tuning.rows import TrialRow, ranked
from schn_ray.tuning.space import Space

_MOST_LISTED = 200  # trials in the table of the page; trials.csv lists all
_MOST_SETTINGS = 9  # that have a column each; further ones share the last
_STATES = {"pruned": "stopped early", "running": "unfinished"}


@dataclass(frozen=True)
class TrialTable:
    """Trials, with a column for what varies among them.

    Attributes:
        heads: of the columns.
        rows: (whether it is one of the best, cells) of each trial, the best first.
        constant: (name, value) of what is the same in all of them.
        left_out: how many trials are not listed.
    """

    heads: Sequence[str]
    rows: Sequence[tuple[bool, Sequence[str]]]
    constant: Sequence[tuple[str, str]]
    left_out: int = 0


def trial_table_of(
    space: Space, rows: Sequence[TrialRow], order: Sequence[str], best: set[int]
) -> TrialTable:
    """Return trials as a table: figures, then settings that vary, the most important first.

    Args:
        space: of the search.
        rows: the trials.
        order: the settings, the most important first.
        best: numbers of the trials that stand out.
    """
    ranks = {row.number: rank for rank, row in enumerate(ranked(rows))}
    listed = sorted(rows, key=lambda row: (ranks.get(row.number, len(rows)), row.number))
    figures = {OBJECTIVES[n].title: [_figure(row, n) for row in listed] for n in space.measured}
    columns = {
        **figures,
        "state": [_STATES.get(row.state, row.state) for row in listed],
        "iterations": [f"{row.iterations}" for row in listed],
        "reason": [row.reason for row in listed],
    }
    settings = {key: [_setting(row, key) for row in listed] for key in order}
    varied = {key: cells for key, cells in settings.items() if len(set(cells)) > 1}
    own = dict(list(varied.items())[:_MOST_SETTINGS])
    shared = {key: cells for key, cells in varied.items() if key not in own}
    # what all trials share says nothing about any of them
    first = {
        name: cells
        for name, cells in columns.items()
        if name != "reason" and (len(set(cells)) > 1 or name in figures)
        if not any(_says_no_more(cells, setting) for setting in own.values())
    }
    table = {"trial": [f"{row.number}" for row in listed], **first, **own}
    if shared:
        table["other settings"] = [
            ", ".join(f"{key} {cells[i]}" for key, cells in shared.items() if cells[i])
            for i in range(len(listed))
        ]
    if any(columns["reason"]):
        table["reason"] = columns["reason"]
    constant = [(name, cells[0]) for name, cells in settings.items() if len(set(cells)) == 1]
    constant += [
        (name, columns[name][0])
        for name in ("state", "iterations")
        if len(listed) > 1 and len(set(columns[name])) == 1
    ]
    lines = list(zip(*table.values(), strict=True))
    return TrialTable(
        list(table),
        [
            (row.number in best, cells)
            for row, cells in list(zip(listed, lines, strict=True))[:_MOST_LISTED]
        ],
        [pair for pair in constant if pair[1]],
        len(rows[_MOST_LISTED:]),
    )


def changes(
    space: Space, rows: Sequence[TrialRow], best: Sequence[TrialRow], order: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return (setting, value in the first trial, value in the winner) of those that differ.

    Args:
        space: of the search.
        rows: the trials.
        best: the winner, alone.
        order: the settings, the most important first.

    Returns:
        Nothing with several objectives, which have no winner, or if the first trial is the winner.
    """
    first = next((row for row in rows if row.number == BASELINE), None)
    if space.multi_objective or first is None:
        return []
    pairs = ((key, _setting(first, key), _setting(best[0], key)) for key in order)
    return [(key, before or "-", after or "-") for key, before, after in pairs if before != after]


def rung_table(space: Space, rows: Sequence[TrialRow]) -> list[tuple[str, ...]]:
    """Return what happened at each rung: the header, and a row a rung.

    Args:
        space: of the search.
        rows: the trials.

    Returns:
        No rows where trials are not stopped early.
    """
    if space.pruning is None:
        return []
    last = max((max(row.curve, default=0) for row in rows), default=0)
    lines: list[tuple[str, ...]] = []
    rung_of = space.pruning.rung
    for rung in sorted({rung_of(t) for t in range(1, last + 1)} - {0}):
        reached = {row.number: row.score_at(rung) for row in rows}
        scores = {number: score for number, score in reached.items() if score is not None}
        ended = (row for row in rows if rung_of(row.iterations) == rung)
        stopped = {row.number for row in ended if row.state == "pruned"}
        passed = [score for number, score in scores.items() if number not in stopped]
        if scores:
            figures = (
                max(scores.values()),
                statistics.median(scores.values()),
                min(passed, default=None),
            )
            texts = ("" if figure is None else f"{figure:.4f}" for figure in figures)
            lines.append((f"iteration {rung}", f"{len(scores)}", f"{len(passed)}", *texts))
    if not lines:
        return []
    head = ("Rung", "Trials", "Went on", "Best mAP", "Median", "Lowest that went on")
    return [head, *lines]


def _says_no_more(cells: Sequence[str], setting: Sequence[str]) -> bool:
    """Tell whether a column repeats a setting, as bits do, which are a setting and an objective."""
    return all(cell in ("", value) for cell, value in zip(cells, setting, strict=True))


def _figure(row: TrialRow, name: str) -> str:
    return value_text(row.figures[name]) if name in row.figures else ""


def _setting(row: TrialRow, key: str) -> str:
    return value_text(row.values[key]) if key in row.values else ""
