"""A search that is killed at any moment has all in its study: proposals, scores, outcomes."""

import json
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.tuning.rows import Outcome, TrialRow, front, ranked
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.trial_queue import Trials

SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {"schedule.iterations": 9, "schedule.decay_after": [5]},
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "method.initial_codes": {"choices": ["zeros", "random", "hadamard"]},
        "method.update_codes": {"choices": [True, False]},
        "method.alpha": {"linear": [0, 4], "when": {"method.update_codes": True}},
        "schedule.epochs": {"integer": [1, 5], "step": 2},
    },
    "start": [{"method.initial_codes": "zeros"}, {}],
    "pruning": {"grace": 1, "factor": 3},
}
BITS = {
    "parameters": {
        "bits": {"choices": [16, 32]},
        "method.initial_codes": {"choices": ["zeros", "random"]},
    },
    "objectives": ["validation_map", "bits"],
    "pruning": None,
}


def opened(path: Path, seed: int = 0, **changed: Any) -> Search:
    space = validated(Space, SPACE | changed)
    return Search(path, space, base_config(space, None, None, ()), seed)


def figure(values: dict[str, Any]) -> float:
    """A stand-in for a training: any function of the settings."""
    return (
        0.5
        + 0.1 * (values["method.initial_codes"] == "random")
        - 0.001 * values["method.quantization"]
    )


def complete(values: dict[str, Any], **figures: float) -> Outcome:
    return Outcome("complete", {"validation_map": figure(values)} | figures, iterations=9)


def run(search: Search, trials: int) -> None:
    while search.count_started() < trials:
        proposal = search.propose()
        assert proposal is not None
        search.finish(proposal.number, complete(proposal.values))


def as_text(search: Search) -> str:
    return json.dumps([[row.number, row.state, row.values] for row in search.rows()])


def test_the_first_trials_are_the_starting_points(tmp_path: Path) -> None:
    search = opened(tmp_path)
    first, second, third = (search.propose() for _ in range(3))
    assert first
    assert second
    assert third
    published = {
        "method.quantization": 10.0,
        "method.initial_codes": "zeros",
        "method.update_codes": True,
        "method.alpha": 2.0,
        "schedule.epochs": 3,
    }
    assert (first.number, first.values) == (0, published)
    assert second.values == published | {"method.initial_codes": "random"}
    assert third.values not in (first.values, second.values)


def test_what_is_proposed_lies_in_the_space_and_conditions_hold(tmp_path: Path) -> None:
    search = opened(tmp_path)
    run(search, 14)
    for row in search.rows():
        assert ("method.alpha" in row.values) == row.values["method.update_codes"]
        assert row.values["schedule.epochs"] in (1, 3, 5)
        for key, value in row.values.items():
            assert search.space.parameters[key].holds(value)
    assert {row.values["method.update_codes"] for row in search.rows()} == {True, False}


def test_stopped_anywhere_and_gone_on_is_the_same_search(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = opened(tmp_path / "whole")
    run(whole, 14)
    for trials in (1, 11, 12, 14):
        search = opened(tmp_path)  # as after a kill: nothing of the last one is in memory
        run(search, trials)
    assert as_text(opened(tmp_path)) == as_text(whole)


def test_control_another_seed_is_another_search(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    search, other = opened(tmp_path), opened(tmp_path / "other", seed=1)
    run(search, 5)
    run(other, 5)
    assert as_text(search) != as_text(other)


def test_trials_that_began_come_first_with_their_settings(tmp_path: Path) -> None:
    search = opened(tmp_path)
    run(search, 2)
    began = [search.propose(), search.propose()]
    queue = Trials(opened(tmp_path), str(tmp_path), total=5)
    assert queue.left() == 3
    jobs = [queue.next(), queue.next(), queue.next()]
    assert queue.next() is None
    assert [job.number for job in jobs if job] == [2, 3, 4]
    for job, proposal in zip(jobs, began, strict=False):
        assert job
        assert proposal
        assert job.config.method.quantization == proposal.values["method.quantization"]


def test_a_kill_while_a_proposal_is_drawn_leaves_it_to_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = opened(tmp_path)
    run(search, 3)
    suggested = optuna.trial.Trial.suggest_int

    def killed(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "suggest_int", killed)
        with pytest.raises(KeyboardInterrupt):
            search.propose()
    assert optuna.trial.Trial.suggest_int is suggested
    before = search.study.trials[3].params
    assert set(before) >= {"method.quantization", "method.initial_codes"}
    (proposal,) = opened(tmp_path).unfinished()
    assert before.items() <= proposal.values.items()
    assert "schedule.epochs" in proposal.values


def test_a_half_made_study_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    assert not (tmp_path / STUDY).exists()
    search = opened(tmp_path)
    run(search, 1)
    assert search.rows()[0].values["method.initial_codes"] == "zeros"


def judged(search: Search, scores: list[float]) -> list[bool]:
    """Begin a trial a score, tell it after one iteration, and return who is stopped."""
    stopped = []
    for score in scores:
        proposal = search.propose()
        assert proposal
        stopped.append(search.report_score(proposal.number, 1, score))
        state = "pruned" if stopped[-1] else "complete"
        figures = {} if stopped[-1] else {"validation_map": score}
        search.finish(proposal.number, Outcome(state, figures, iterations=1))  # type: ignore[arg-type]
    return stopped


def test_who_is_not_among_the_best_third_is_stopped(tmp_path: Path) -> None:
    # by hand: 1 of 2 or 3 goes on, then 1 of 4 and 5, then 2 of 6
    assert judged(opened(tmp_path), [0.5, 0.4, 0.6, 0.55, 0.7, 0.65]) == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_rungs_outlive_the_process(tmp_path: Path) -> None:
    assert judged(opened(tmp_path), [0.5, 0.4, 0.6]) == [False, True, False]
    assert judged(opened(tmp_path), [0.55, 0.7, 0.65]) == [True, False, False]


def test_the_first_trial_is_never_stopped(tmp_path: Path) -> None:
    search = opened(tmp_path)
    first, second = search.propose(), search.propose()
    assert first
    assert second
    assert not search.report_score(second.number, 1, 0.9)
    assert not search.report_score(first.number, 1, 0.1)
    third = search.propose()
    assert third
    assert search.report_score(third.number, 1, 0.1)


def test_nobody_is_stopped_after_the_last_iteration(tmp_path: Path) -> None:
    search = opened(tmp_path)
    for score in (0.9, 0.1):
        proposal = search.propose()
        assert proposal
        stopped = [search.report_score(proposal.number, t, score) for t in (1, 3, 9)]
    assert stopped == [True, True, False]


def test_what_was_told_before_is_not_judged_again(tmp_path: Path) -> None:
    search = opened(tmp_path)
    _, second = search.propose(), search.propose()
    assert second
    assert not search.report_score(second.number, 1, 0.5)
    for _ in range(5):
        other = search.propose()
        assert other
        search.report_score(other.number, 1, 0.9)
    again = opened(tmp_path)
    again.unfinished()
    assert not again.report_score(second.number, 1, 0.5)  # judged when it was reported
    assert list(again.rows()[second.number].curve) == [1]


def test_a_figure_that_is_not_a_number_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    search = opened(tmp_path)
    proposal = search.propose()
    assert proposal
    search.finish(proposal.number, Outcome("complete", {"validation_map": float("nan")}))
    (row,) = search.rows()
    assert (row.state, row.reason) == ("failed", "validation mAP is nan, not a number")
    assert search.count_ended() == 1


def test_a_trial_ends_once(tmp_path: Path) -> None:
    search = opened(tmp_path)
    proposal = search.propose()
    assert proposal
    search.finish(proposal.number, Outcome("complete", {"validation_map": 0.5}))
    search.finish(proposal.number, Outcome("complete", {"validation_map": 0.9}))
    assert search.study.trials[0].value == 0.5


def test_settings_are_tried_once_and_a_small_space_ends(tmp_path: Path) -> None:
    search = opened(tmp_path, **BITS)
    while (proposal := search.propose()) is not None:
        figures = {"bits": float(proposal.values["bits"]), "validation_map": 0.5}
        search.finish(proposal.number, Outcome("complete", figures))
    assert search.exhausted
    settings = [tuple(row.values.values()) for row in search.rows()]
    assert sorted(settings) == [(16, "random"), (16, "zeros"), (32, "random"), (32, "zeros")]


def test_a_sampler_that_likes_one_setting_does_not_end_the_search(tmp_path: Path) -> None:
    few: dict[str, Any] = {
        "method.quantization": {"choices": [0.1, 10.0]},
        "method.initial_codes": {"choices": ["zeros", "random", "hadamard"]},
        "method.update_codes": {"choices": [True, False]},
        "method.alpha": {"integer": [1, 2], "when": {"method.update_codes": True}},
    }
    search = opened(tmp_path, parameters=few, start=[], pruning=None)
    while (proposal := search.propose()) is not None:
        search.finish(proposal.number, complete(proposal.values))
    assert len({json.dumps(row.values) for row in search.rows()}) == 2 * 3 * (2 + 1)
    assert len(search.rows()) == 18
    assert len(search.study.trials) > 2 * 18  # TPE, which begins after 10 trials, repeated itself


def test_what_is_drawn_lies_in_its_domain() -> None:
    space = validated(Space, SPACE)
    for domain in space.parameters.values():
        drawn = [domain.draw(Random(seed)) for seed in range(50)]
        assert all(domain.holds(value) for value in drawn)
        assert len(set(drawn)) > 1


def test_the_study_is_optuna_s_own(tmp_path: Path) -> None:
    search = opened(tmp_path)
    run(search, 3)
    file = JournalFileBackend(str(tmp_path / STUDY))
    study = optuna.load_study(study_name=None, storage=JournalStorage(file))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.best_value == max(figure(row.values) for row in search.rows())


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_two_objectives_with_every_sampler(tmp_path: Path, sampler: str) -> None:
    search = opened(tmp_path, **BITS, sampler=sampler)
    for _ in range(3):
        proposal = search.propose()
        assert proposal
        assert not search.report_score(proposal.number, 1, 0.1)
        search.finish(proposal.number, Outcome("complete", {"validation_map": 0.5, "bits": 16.0}))
    assert len(search.study.trials) >= 3


def row(number: int, score: float, bits: float) -> TrialRow:
    return TrialRow("complete", {"validation_map": score, "bits": bits}, number=number)


def test_the_front_is_what_nobody_beats() -> None:
    rows = [row(0, 0.5, 32), row(1, 0.6, 32), row(2, 0.5, 16), row(3, 0.7, 64), row(4, 0.6, 32)]
    rows.append(TrialRow("pruned", number=5))
    assert [r.number for r in front(rows, ("validation_map", "bits"))] == [1, 2, 3]
    assert [r.number for r in front(rows, ("validation_map",))] == [3]
    assert [r.number for r in ranked(rows)] == [3, 1, 4, 0, 2]


def test_a_damaged_study_is_refused_and_a_cut_one_is_what_a_kill_leaves(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = opened(tmp_path / "whole")
    run(whole, 6)
    sound = (tmp_path / "whole" / STUDY).read_bytes()
    created = sound.index(b"\n", sound.index(b'"starts"'))
    rng, ends_equal = Random(0), 0
    for turn in range(60):
        data = bytearray(sound)
        if turn % 2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data) - 1)] ^= 1 << rng.randrange(8)
        (tmp_path / STUDY).write_bytes(data)
        if turn % 2 == 0 or len(data) <= created:
            with pytest.raises(SchnRayError, match=r"study.jsonl.* is damaged"):
                opened(tmp_path)
            continue
        search = opened(tmp_path)
        for proposal in search.unfinished():
            search.finish(proposal.number, complete(proposal.values))
        run(search, 6)
        assert as_text(search) == as_text(whole), len(data)
        ends_equal += 1
    assert ends_equal > 10


def test_steps_that_are_missing_or_in_another_order_are_noticed(tmp_path: Path) -> None:
    run(opened(tmp_path), 3)
    lines = (tmp_path / STUDY).read_bytes().splitlines(keepends=True)
    for other in ([*lines[:9], *lines[10:]], [*lines[:9], lines[10], lines[9], *lines[11:]]):
        (tmp_path / STUDY).write_bytes(b"".join(other))
        with pytest.raises(SchnRayError, match="line 10, is damaged"):
            opened(tmp_path)
