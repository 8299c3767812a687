"""Constraints: what breaks one is not best, is not trained if that is known before, and is told."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.kills import Killed

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.tuning.constraints import constraint_lines, read_constraint
from schn_ray.tuning.journal import CheckedJournal
from schn_ray.tuning.results import best_rows, study_counts, study_verdict, write_results
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config, check_space
from schn_ray.tuning.study import Search

SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {"schedule.iterations": 9, "schedule.decay_after": [5]},
    "parameters": {
        "bits": {"integer": [16, 128], "step": 16},
        "method.quantization": {"log": [0.1, 100]},
    },
    "constraints": {"bits": "<= 64", "validation_map": ">= 0.5"},
}


def opened(path: Path, **changed: Any) -> Search:
    path.mkdir(exist_ok=True)
    space = validated(Space, SPACE | changed)
    base = base_config(space, None, None, ())
    check_space(space, base)
    return Search(path, space, base, seed=2, cost=lambda config: float(config.bits) / 32)


def figures(values: dict[str, Any]) -> dict[str, float]:
    """A stand-in for a training: long codes and small weights are good."""
    score = 0.3 + 0.004 * values["bits"] - 0.003 * values["method.quantization"]
    return {"validation_map": score, "bits": float(values["bits"]), "encoding_cost": 1.0}


def run(search: Search, trials: int) -> None:
    unfinished = search.unfinished()
    while search.count_ended() < trials:
        proposal = unfinished.pop(0) if unfinished else search.propose()
        if proposal is None:
            return
        search.finish(proposal.number, Outcome("complete", figures(proposal.values), "", 9))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("objectives", [["validation_map"], ["validation_map", "bits"]])
def test_only_what_meets_the_constraints_is_trained_and_best(
    tmp_path: Path, sampler: str, objectives: list[str]
) -> None:
    search = opened(tmp_path, sampler=sampler, objectives=objectives)
    run(search, 12)
    states = {row.number: row.state for row in search.rows()}
    for row in search.rows():
        short, good = row.values["bits"] <= 64, figures(row.values)["validation_map"] >= 0.5
        assert row.is_counted == short  # longer codes are never trained
        assert row.state == ("complete" if short and good else "infeasible")
    assert search.count_ended() == 12
    assert {"complete", "infeasible"} == set(states.values())
    best = best_rows(search, None)
    assert best
    assert all(states[row.number] == "complete" for row in best)
    optuna_s = {trial.number for trial in search.study.best_trials}
    assert {row.number for row in best} <= optuna_s  # Optuna sees the same constraints


def test_why_a_trial_does_not_count_is_in_the_table(tmp_path: Path) -> None:
    search = opened(tmp_path, sampler="random")
    run(search, 12)
    write_results(tmp_path, search, None)
    lines = list(csv.DictReader((tmp_path / "trials.csv").open()))
    for line in lines:
        untrained = int(line["bits"]) > 64
        assert (line["validation_map"] == "") == untrained
        if untrained:
            assert line["reason"] == f"not trained: bits {line['bits']}, not <= 64"
        elif line["state"] == "infeasible":
            assert line["reason"].startswith("validation_map 0.")
            assert line["reason"].endswith(", not >= 0.5")
    counts = study_counts(search, None, 0)
    assert counts["trials"] == 12
    assert counts["not_trained"] == len(lines) - 12 > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = opened(tmp_path_factory.mktemp("whole"))
    run(search, 11)
    return search


@pytest.mark.parametrize("moment", range(1, 60, 13))
def test_killed_after_any_step_it_ends_the_same(
    moment: int, whole: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = moments(moment)
    really = CheckedJournal.append_logs

    def dies(self: CheckedJournal, logs: list[dict[str, Any]]) -> None:
        really(self, logs)
        next(steps)

    with monkeypatch.context() as patch:
        patch.setattr(CheckedJournal, "append_logs", dies)
        with suppress(Killed):
            run(opened(tmp_path / "killed"), 11)
    again = opened(tmp_path / "killed")
    run(again, 11)
    ended = [[(r.number, r.state, r.values, r.reason) for r in s.rows()] for s in (whole, again)]
    assert ended[0] == ended[1]
    assert any(not row.is_counted for row in whole.rows())


def moments(last: int) -> Iterator[None]:
    yield from [None] * last
    raise Killed


def test_a_space_of_few_feasible_settings_is_searched_whole(tmp_path: Path) -> None:
    few = {"bits": SPACE["parameters"]["bits"], "method.update_codes": {"choices": [True, False]}}
    search = opened(tmp_path, parameters=few, constraints={"bits": "<= 48"})
    while (proposal := search.propose()) is not None:
        search.finish(proposal.number, Outcome("complete", {"validation_map": 0.5, "bits": 1.0}))
    assert search.exhausted
    trained = [row for row in search.rows() if row.is_counted]
    assert len(trained) == 3 * 2
    assert max(row.values["bits"] for row in trained) == 48


def test_nothing_feasible_is_a_clear_end(tmp_path: Path) -> None:
    search = opened(tmp_path / "trained", constraints={"validation_map": ">= 0.99"})
    run(search, 4)
    write_results(tmp_path / "trained", search, None)
    assert not (tmp_path / "trained" / "best.yaml").exists()
    (line,) = study_verdict(search, None)
    assert line.startswith("no trial meets the constraints (validation_map >= 0.99); the best of")
    best = max(row.figures["validation_map"] for row in search.rows())
    assert f"validation mAP {best:.4g}" in line
    costly = opened(tmp_path / "costly", constraints={"encoding_cost": "<= 0.1"})
    run(costly, 4)
    assert costly.exhausted
    assert study_verdict(costly, None) == [
        "no settings meet the constraints (encoding_cost <= 0.1): give others, or a wider space"
    ]


@pytest.mark.parametrize("objectives", [["validation_map"], ["validation_map", "bits"]])
@pytest.mark.parametrize("bound", [0.0, 0.5])
def test_infeasible_trials_stop_nobody(tmp_path: Path, bound: float, objectives: list[str]) -> None:
    pruned = {"objectives": objectives, "pruning": {"grace": 1}}
    search = opened(tmp_path, constraints={"validation_map": f">= {bound}"}, **pruned)
    for _ in range(8):
        proposal = search.propose()
        assert proposal
        search.report_score(proposal.number, 1, 0.45)
        ended = {"validation_map": 0.45, "bits": 16.0}
        search.finish(proposal.number, Outcome("complete", ended, "", 9))
    proposal = search.propose()
    assert proposal
    assert proposal.values["bits"] > min(row.values["bits"] for row in search.rows())
    assert search.report_score(proposal.number, 1, 0.05) == (bound == 0)


@pytest.mark.parametrize("bound", [0.5, 0.9])
def test_who_is_beyond_a_bound_stops_nobody_even_while_it_runs(
    tmp_path: Path, bound: float
) -> None:
    limits = {"validation_map": f"<= {bound}"}
    search = opened(tmp_path, constraints=limits, pruning={"grace": 1})
    first, second, third = (search.propose() for _ in range(3))
    assert first
    assert second
    assert third
    assert not search.report_score(second.number, 1, 0.45)
    search.report_score(second.number, 2, 0.8)  # no rung, but it can only rise
    assert search.report_score(third.number, 1, 0.4) == (bound == 0.9)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"bit": "<= 64"}, "'bit' is not measured; did you mean 'bits'"),
        ({"bits": "< 64"}, "got '< 64', expected <= or >="),
        ({"bits": "<= many"}, "expected <= or >= and a number"),
        ({"validation_map": ">= 40"}, "validation_map >= 40 cannot be met"),
        ({"bits": "<= 16"}, r"has 32 bits, but the constraint is bits <= 16: give start"),
    ],
)
def test_constraints_are_checked_before_the_start(
    tmp_path: Path, constraints: dict[str, str], message: str
) -> None:
    with pytest.raises(SchnRayError, match=message):
        opened(tmp_path, constraints=constraints)


def test_lines_of_the_command_are_those_of_a_space() -> None:
    lines = constraint_lines(["bits<=64", " encoding_cost >= 1e-3 "])
    assert lines == {"bits": "<=64", "encoding_cost": ">= 1e-3 "}
    assert str(read_constraint("encoding_cost", lines["encoding_cost"])) == "encoding_cost >= 0.001"
    with pytest.raises(SchnRayError, match="expected a figure and a bound, such as 'bits <= 64'"):
        constraint_lines(["bits 64"])
