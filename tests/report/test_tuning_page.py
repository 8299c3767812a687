"""What the page of a search shows: tables, rungs, contours and the hypervolume."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schn_ray.core.settings import validated
from schn_ray.report.draw import LIGHT
from schn_ray.report.draw_tuning import draw_panel
from schn_ray.report.hypervolume import hypervolume
from schn_ray.report.tuning_panels import contours, fronts, history, hypervolume_history
from schn_ray.report.tuning_tables import changes, rung_table, trial_table_of
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.space import Space

SPACE: dict[str, Any] = {
    "preset": "digits",
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "method.update_codes": {"choices": [True, False]},
        "bits": {"integer": [16, 64], "step": 16},
    },
    "pruning": {"grace": 1, "factor": 3},
}


def test_the_hypervolume_grows_to_that_of_the_front() -> None:
    rows = [
        TrialRow("complete", {"validation_map": m, "bits": b}, "", 4, number=n)
        for n, (m, b) in enumerate([(0.5, 32.0), (0.4, 64.0), (0.8, 64.0), (0.3, 16.0)])
    ]
    chart = hypervolume_history(rows, ["validation_map", "bits"])
    assert chart
    corner = 1.1 * 64  # by hand: rectangles below each trial that nothing dominates
    areas = [0, 0.5 * (corner - 32), 0.5 * (corner - 32)]
    areas += [areas[1] + 0.3 * (corner - 64), areas[1] + 0.3 * (corner - 64) + 0.3 * 16]
    iterations, volumes = zip(*chart.curves[0].points, strict=True)
    assert iterations == (0, 4, 8, 12, 16)
    assert volumes == pytest.approx([area / corner for area in areas])
    assert hypervolume_history(rows, ["validation_map"]) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_hypervolume_of_three_objectives_is_the_share_of_points_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.2, 1, (7, 3))
    drawn = rng.uniform(0, 1, (200_000, 3))
    below = (drawn[:, None] <= points).all(axis=2).any(axis=1).mean()
    assert hypervolume([tuple(p) for p in points.tolist()]) == pytest.approx(below, abs=0.005)


def trial_rows(cells: list[dict[str, Any]]) -> list[TrialRow]:
    return [
        TrialRow("complete", {"validation_map": 0.5, "bits": 16.0}, "", 4, number=n, values=values)
        for n, values in enumerate(cells)
    ]


def test_the_table_has_what_varies_first_and_what_is_the_same_apart() -> None:
    space = validated(Space, SPACE)
    order = ["bits", "method.quantization", "method.update_codes", "method.alpha"]
    rows = trial_rows(
        [{"method.quantization": q, "method.update_codes": True, "bits": 16} for q in (1.0, 2.0)]
    )
    table = trial_table_of(space, rows, order, {1})
    assert table.heads == ["trial", "validation mAP", "method.quantization"]
    assert [cells for _, cells in table.rows] == [("0", "0.5", "1"), ("1", "0.5", "2")]
    assert [best for best, _ in table.rows] == [False, True]
    constant = dict(table.constant)
    assert constant == {
        "bits": "16",
        "method.update_codes": "true",
        "state": "complete",
        "iterations": "4",
    }
    failed = TrialRow("failed", {}, "no memory", 1, number=2, values=rows[0].values)
    heads = trial_table_of(space, [*rows, failed], order, set()).heads
    assert [*heads[:4], heads[-1]] == ["trial", "validation mAP", "state", "iterations", "reason"]


def test_bits_are_one_column_where_they_are_an_objective_too() -> None:
    space = validated(Space, SPACE | {"objectives": ["validation_map", "bits"], "pruning": None})
    rows = [
        TrialRow("complete", {"validation_map": 0.5, "bits": b}, number=n, values={"bits": int(b)})
        for n, b in enumerate([16.0, 32.0])
    ]
    stopped = TrialRow("pruned", {}, number=2, values={"bits": 48})
    for shown in (rows, [*rows, stopped]):
        heads = trial_table_of(space, shown, ["bits"], set()).heads
        assert [head for head in heads if "bits" in head] == ["bits"]


def test_many_settings_share_a_column_and_none_is_cut() -> None:
    names = [f"method.s{i}" for i in range(12)]
    rows = trial_rows([{name: t for name in names} for t in (1, 2)])
    table = trial_table_of(validated(Space, SPACE), rows, names, set())
    assert table.heads == ["trial", "validation mAP", *names[:9], "other settings"]
    assert table.rows[0][1][-1] == "method.s9 1, method.s10 1, method.s11 1"


def test_rungs_say_who_went_on() -> None:
    space = validated(Space, SPACE | {"pruning": {"grace": 1, "factor": 3}})
    curves = [{1: 0.3, 2: 0.4, 3: 0.5}, {1: 0.2}, {1: 0.4, 2: 0.4, 3: 0.45}]
    states = ["complete", "pruned", "pruned"]
    rows = [
        TrialRow(state, {}, "", len(curve), number=n, curve=curve)  # type: ignore[arg-type]
        for n, (state, curve) in enumerate(zip(states, curves, strict=True))
    ]
    assert rung_table(space, rows)[1:] == [
        ("iteration 1", "3", "2", "0.4000", "0.3000", "0.3000"),
        ("iteration 3", "2", "1", "0.5000", "0.4750", "0.5000"),
    ]
    assert rung_table(validated(Space, SPACE | {"pruning": None}), rows) == []
    every_second = [replace(row, iterations=4, curve={2: 0.1, 4: 0.2}) for row in rows]
    assert [line[:3] for line in rung_table(space, every_second)[1:]] == [
        ("iteration 1", "3", "3"),
        ("iteration 3", "3", "1"),
    ]


def test_contours_can_be_drawn_of_points_on_a_line() -> None:
    space = validated(Space, SPACE)
    keys = ["method.quantization", "bits"]
    rows = [
        TrialRow(
            "complete",
            {"validation_map": n / 10},
            number=n,
            values={"method.quantization": 0.1 * 2**n, "bits": 16},
        )
        for n in range(7)
    ]
    (line,) = contours(space, keys, rows)
    assert draw_panel(line, LIGHT).startswith(b"<?xml")
    assert contours(space, keys, rows[:5]) == []


def test_the_winner_is_compared_with_the_first_trial() -> None:
    first, winner = trial_rows(
        [{"bits": 16, "method.quantization": 1.0}, {"bits": 32, "method.quantization": 1.0}]
    )
    order = ["method.quantization", "method.update_codes", "bits"]
    space = validated(Space, SPACE)
    assert changes(space, [first, winner], [winner], order) == [("bits", "16", "32")]
    assert changes(space, [first, winner], [first], order) == []


def test_infeasible_trials_are_crosses_and_never_on_the_front() -> None:
    figures = [(0.5, 16.0), (0.9, 64.0), (0.4, 32.0)]
    rows = [
        TrialRow(state, {"validation_map": m, "bits": b}, why, number=n, values={"bits": int(b)})
        for n, ((m, b), state, why) in enumerate(
            zip(
                figures, ("complete", "infeasible", "complete"), ("", "bits <= 32", ""), strict=True
            )
        )
    ]
    looks = {dots.label: (dots.look, dots.points) for dots in history(rows).dots}
    assert looks["infeasible"] == ("cross", ((1.0, 0.9),))
    assert looks["best"][1] == ((0.0, 0.5), (2.0, 0.5))
    (panel,) = fronts(rows, ["validation_map", "bits"])
    points = {dots.label: dots.points for dots in panel.dots}
    assert points == {
        "Pareto front": ((16.0, 0.5),),
        "other trials": ((32.0, 0.4),),
        "infeasible": ((64.0, 0.9),),
    }
    table = trial_table_of(validated(Space, SPACE), rows, ["bits"], {0})
    assert table.rows[-1] == (False, ("1", "0.9", "infeasible", "64", "bits <= 32"))
