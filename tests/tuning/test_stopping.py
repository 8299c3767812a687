"""When no more trials begin: nothing was gained lately, or time is over; also after a restart."""

from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.tuning.rows import Outcome, TrialRow
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.stopping import StoppingRule, gains_nothing
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial_queue import Trials

SPACE: dict[str, Any] = {
    "preset": "digits",
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "bits": {"integer": [16, 64], "step": 16},
    },
    "sampler": "random",
}


def opened(path: Path, **changed: Any) -> Search:
    space = validated(Space, SPACE | changed)
    return Search(path, space, base_config(space, None, None, ()))


def ended(search: Search, *scores: float) -> None:
    for score in scores:
        proposal = search.propose()
        assert proposal
        figures = {"validation_map": score, "bits": float(proposal.values["bits"])}
        outcome = Outcome("complete", figures) if score else Outcome("failed")
        search.finish(proposal.number, outcome)


def gained_nothing(search: Search, last: int) -> bool:
    space = search.space
    return gains_nothing(search.rows(), space.objectives, space.close, last)


@pytest.mark.parametrize("seed", range(8))
def test_with_one_objective_the_best_of_the_last_is_within_close_of_the_best_before(
    seed: int, tmp_path: Path
) -> None:
    draw = Random(seed)
    scores = [round(draw.uniform(0.5, 0.56), 3) for _ in range(12)]
    search = opened(tmp_path)
    for count, score in enumerate(scores, 1):
        ended(search, score)
        before, last = scores[: count - 5 if count > 5 else 0], scores[max(0, count - 5) : count]
        expected = count > 5 and max(last) - 0.01 <= max(before)
        assert gained_nothing(search, 5) == expected


def test_failures_gain_nothing_and_a_first_success_does(tmp_path: Path) -> None:
    search = opened(tmp_path)
    ended(search, 0, 0, 0, 0, 0, 0)
    assert gained_nothing(search, 5)
    ended(search, 0.1)
    assert not gained_nothing(search, 5)


def point(number: int, score: float, bits: int) -> TrialRow:
    figures = {"validation_map": score, "bits": float(bits)}
    return TrialRow("complete", figures, number=number, ended=datetime(2026, 1, 1 + number))


def test_with_two_objectives_a_point_beside_the_front_is_a_gain() -> None:
    rows = [point(0, 0.6, 32), point(1, 0.5, 16), point(2, 0.605, 32), point(3, 0.4, 24)]
    objectives = ("validation_map", "bits")
    assert gains_nothing(rows, objectives, 0.01, 2)
    assert not gains_nothing(rows, objectives, 0.001, 2)
    assert not gains_nothing([*rows, point(4, 0.3, 8)], objectives, 0.01, 2)  # shorter than any


def test_no_trial_begins_after_the_end_and_those_that_began_go_on(tmp_path: Path) -> None:
    search = opened(tmp_path)
    ended(search, 0.5)
    began = search.propose()
    assert began
    queue = Trials(opened(tmp_path), str(tmp_path), total=9, stop=lambda: "1 hours are over")
    job = queue.next()
    assert job
    assert job.number == began.number
    queue.finish(job.number, Outcome("complete", {"validation_map": 0.5}))
    assert queue.next() is None
    assert queue.stopped == "1 hours are over"
    assert queue.left() == 0
    more = Trials(opened(tmp_path), str(tmp_path), total=9)  # without the rule, it goes on
    assert more.left() == 7
    assert more.next()
    whole = Trials(opened(tmp_path), str(tmp_path), total=3, stop=lambda: "never asked")
    assert whole.next()
    assert whole.next() is None
    assert not whole.stopped


def test_a_restart_stops_where_the_search_did(tmp_path: Path) -> None:
    rule, search = StoppingRule(no_gain=5), opened(tmp_path)

    def reason(of: Search) -> str:
        return rule.reason(of.rows(), of.space.objectives, of.space.close, 0.0)

    while not reason(search):
        ended(search, 0.5)
        assert reason(opened(tmp_path)) == reason(search)
    assert search.count_ended() == 6
    assert reason(search) == "the last 5 trials gained nothing beyond 0.01"


def test_hours_are_those_of_all_sessions(tmp_path: Path) -> None:
    search, rule = opened(tmp_path), StoppingRule(hours=0.5)
    search.record_session(None, 1000.0, 2)
    search.record_session(None, 700.0, 2)
    again = opened(tmp_path)
    assert again.seconds() == 1700
    assert rule.reason([], ["validation_map"], 0.01, again.seconds() + 99) == ""
    assert rule.reason([], ["validation_map"], 0.01, again.seconds() + 100) == "0.5 hours are over"


@pytest.mark.parametrize(
    "rule", [{"no_gain": 4}, {"hours": 0.0}, {"hours": float("nan")}, {"hours": float("inf")}]
)
def test_rules_that_mean_nothing_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(SchnRayError, match=r"--until-no-gain 4: so few|--max-hours .*: expected"):
        StoppingRule(**rule)
