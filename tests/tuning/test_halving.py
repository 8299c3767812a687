"""Successive halving, with one objective and several: who is stopped; a kill changes nothing."""

from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from support.kills import Killed

from schn_ray.core.settings import validated
from schn_ray.tuning.halving import Point, is_hopeless
from schn_ray.tuning.journal import CheckedJournal
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search

SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {"schedule.iterations": 9, "schedule.decay_after": [5]},
    "parameters": {
        "bits": {"choices": [16, 24, 32, 48]},
        "method.quantization": {"log": [0.1, 100]},
    },
    "objectives": ["validation_map", "bits"],
    "pruning": {"grace": 1, "factor": 3},
}
QUANTIZATION = {"method.quantization": {"log": [0.1, 100]}}


def front_by_front(points: list[Point]) -> list[list[Point]]:
    """Sort as the definition says, slowly."""
    fronts, rest = [], list(points)
    while rest:
        first = [
            p
            for p in rest
            if not any(q != p and all(a >= b for a, b in zip(q, p, strict=True)) for q in rest)
        ]
        fronts.append(first)
        rest = [p for p in rest if p not in first]
    return fronts


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_it_goes_on_with_fewer_than_its_share_in_fronts_before_it(factor: int) -> None:
    draw = Random(factor)
    for _ in range(200):
        points = [(draw.randrange(6), draw.randrange(4)) for _ in range(draw.randrange(1, 20))]
        own, *others = points
        fronts = front_by_front(points)
        before = sum(len(front) for front in fronts[: [own in f for f in fronts].index(True)])
        assert is_hopeless(own, others, factor) == (before >= max(1, len(points) // factor))


ONE = {"objectives": ["validation_map"]}


# Optuna judges twice who comes to two rungs at once, as with factor 2 and every second iteration
@pytest.mark.parametrize(("factor", "every"), [(2, 1), (3, 1), (3, 2)])
def test_with_one_objective_it_is_optuna_s_own(tmp_path: Path, factor: int, every: int) -> None:
    pruning = {"grace": 1, "factor": factor}
    search = opened(tmp_path, **ONE, pruning=pruning, parameters=QUANTIZATION)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    draw, answers = Random(factor), []
    proposals = [search.propose() for _ in range(14)]
    theirs = {p.number: study.ask() for p in proposals if p}
    at, going = dict.fromkeys(theirs, 0), list(theirs)
    while going:  # side by side, in any order; some iterations are not validated
        number = draw.choice(going)
        at[number] += every
        value = draw.randrange(12) / 12
        best = max([value, *theirs[number].study.trials[number].intermediate_values.values()])
        theirs[number].report(best, at[number])
        expected = theirs[number].should_prune() and number != 0 and at[number] < 9
        assert search.report_score(number, at[number], best) == expected
        answers.append(expected)
        if expected or at[number] >= 9:
            going.remove(number)
    assert len(set(answers)) == 2


def score(bits: int, quantization: float, iteration: int) -> float:
    return (0.3 + 0.005 * bits - 0.002 * quantization) * iteration / 9


def opened(path: Path, **changed: Any) -> Search:
    path.mkdir(exist_ok=True)
    space = validated(Space, SPACE | changed)
    return Search(path, space, base_config(space, None, None, ()), seed=3)


def run(search: Search, trials: int) -> None:
    """Run trials one after the other, as a driver does; those begun before come first."""
    unfinished = search.unfinished()
    while search.count_ended() < trials:
        proposal = unfinished.pop(0) if unfinished else search.propose()
        assert proposal is not None
        bits, quantization = proposal.values["bits"], proposal.values["method.quantization"]
        number, last = proposal.number, 0
        outcome = Outcome("pruned")
        for last in range(1, 10):
            if search.report_score(number, last, score(bits, quantization, last)):
                break
        else:
            figures = {"validation_map": score(bits, quantization, 9), "bits": float(bits)}
            outcome = Outcome("complete", figures)
        search.finish(number, Outcome(outcome.state, outcome.figures, iterations=last))


def ended(search: Search) -> list[tuple[int, str, int]]:
    return [(row.number, row.state, row.iterations) for row in search.rows()]


def test_dominated_trials_are_stopped_at_rungs_and_their_curves_stay(tmp_path: Path) -> None:
    search = opened(tmp_path)
    run(search, 24)
    states = {row.state for row in search.rows()}
    assert states == {"complete", "pruned"}
    for row in search.rows():
        assert row.iterations in ((1, 3) if row.state == "pruned" else (9,))
        assert sorted(row.curve) == list(range(1, row.iterations + 1))
    assert search.rows()[0].state == "complete"  # all others are compared with it


def test_without_pruning_none_is_stopped(tmp_path: Path) -> None:
    search = opened(tmp_path, pruning=None)
    run(search, 12)
    assert {row.state for row in search.rows()} == {"complete"}


@pytest.mark.parametrize("moment", range(1, 60, 6))
def test_killed_after_any_answer_it_ends_the_same(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = ONE if moment % 4 == 1 else {}
    undisturbed = opened(tmp_path / "a", **changed)
    run(undisturbed, 12)
    steps = [0]
    really = Search.report_score

    def dies(self: Search, *given: Any) -> bool:
        answer = really(self, *given)
        steps[0] += 1
        if steps[0] == moment:  # what it answered is written, and nobody has acted on it
            raise Killed
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Search, "report_score", dies)
        with suppress(Killed):
            run(opened(tmp_path / "b", **changed), 12)
    again = opened(tmp_path / "b", **changed)
    run(again, 12)
    assert ended(again) == ended(undisturbed)


def test_an_answer_outlives_a_kill_before_its_score_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = opened(tmp_path, **ONE)
    first, second, third = (search.propose() for _ in range(3))
    assert first
    assert second
    assert third
    assert not search.report_score(second.number, 1, 0.5)
    really = CheckedJournal.append_logs

    def dies(self: CheckedJournal, logs: list[dict[str, Any]]) -> None:
        really(self, logs)
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(CheckedJournal, "append_logs", dies)
        search.report_score(third.number, 1, 0.4)
    again = opened(tmp_path, **ONE)
    again.unfinished()
    again.finish(second.number, Outcome("failed"))  # it is compared with nobody now
    assert again.report_score(third.number, 1, 0.4)
    assert again.report_score(third.number, 1, 0.4)
    assert again.rows()[third.number].curve == {1: 0.4}


def test_encoding_costs_are_counted_before_a_trial_has_ended(tmp_path: Path) -> None:
    space = validated(Space, SPACE | {"objectives": ["validation_map", "encoding_cost"]})
    base = base_config(space, None, None, ())
    search = Search(tmp_path, space, base, 3, cost=lambda config: float(config.bits))
    cheapest, stopped = 1000, []
    for _ in range(10):  # one is worse than the other, and is stopped unless it costs less
        proposal = search.propose()
        assert proposal is not None
        falling = 0.5 - 0.01 * proposal.number
        stopped.append((proposal.values["bits"], search.report_score(proposal.number, 1, falling)))
    assert len({bits for bits, _ in stopped}) > 2
    for bits, hopeless in stopped[1:4]:
        cheapest = min(cheapest, stopped[0][0])
        assert hopeless == (bits >= cheapest)
        cheapest = min(cheapest, bits)
