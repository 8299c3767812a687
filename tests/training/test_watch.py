"""What a person sees while a run trains."""

from __future__ import annotations

import io
import random
import time
from typing import Any

import pytest

from schn_ray.training.state import Steps
from schn_ray.training.watch import Pace, TrainingProgress, watched


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.now)
    return Clock


def line(iteration: int) -> dict[str, Any]:
    return {"iteration": iteration, "loss": {"pairs": 0.25}, "validation_map": 0.5}


def test_steps_of_the_first_iteration_are_shown(clock: Any) -> None:
    progress = TrainingProgress(3, out=io.StringIO())
    clock.now = 7
    progress.see([], None)
    assert str(progress) == "training: starting, 0:07"
    progress.see([], Steps(1, 0, 10))
    assert str(progress) == "training: iteration 1 of 3, step 0 of 10, 0:07"
    clock.now = 9
    progress.see([], Steps(1, 1, 10))
    # 9 steps and two iterations of 10; what an iteration does besides is not known yet
    assert (
        str(progress)
        == "training: iteration 1 of 3, step 1 of 10, 2.0 s a step, at least 0:58 left"
    )
    clock.now = 27
    progress.see([], Steps(1, 10, 10))
    assert "iteration 1 of 3, measuring it, 2.0 s a step, at least 0:40 left" in str(progress)
    clock.now = 33  # validation took 4 s
    progress.see([line(1)], Steps(2, 1, 10))
    # 9 + 10 steps, and twice 4 s
    assert str(progress) == (
        "training: iteration 2 of 3, step 1 of 10, 2.0 s a step, 0:46 left"
        "  loss 0.25, validation mAP 0.500"
    )
    progress.see([line(1), line(2), line(3)], Steps(3, 10, 10))
    assert str(progress).startswith("training: 3 of 3 iterations, ")


def test_a_run_that_goes_on_says_what_is_done(clock: Any) -> None:
    progress = TrainingProgress(5, done=2, out=io.StringIO())
    progress.see([line(1), line(2)], None)
    assert str(progress).startswith("training: 2 iterations done, starting, 0:00")
    clock.now = 4
    progress.see([line(1), line(2)], Steps(3, 2, 8))
    assert "iteration 3 of 5, step 2 of 8, 0:04" in str(progress)


def test_iterations_without_steps_are_shown_as_before(clock: Any) -> None:
    progress = TrainingProgress(None, out=io.StringIO())
    clock.now = 30
    progress.see([line(1), line(2), line(3)], None)
    assert str(progress).startswith("training: 3 iterations, 10 s each, 0:30")


def test_the_time_left_does_not_grow_with_slow_steps_and_noise() -> None:
    """It is compared with the truth, for steps of 0.5 to 1.5 s, each twentieth of 15 s."""
    chance, pace = random.Random(0), Pace()
    seconds = [[chance.uniform(0.5, 1.5) for _ in range(50)] for _ in range(6)]
    for iteration in seconds:
        iteration[::20] = [15.0] * 3
    validation = 8.0
    whole = sum(map(sum, seconds)) + 6 * validation
    now, estimates = 0.0, []
    for iteration, times in enumerate(seconds, start=1):
        for done, each in enumerate([0.0, *times]):
            now += each
            pace.see(Steps(iteration, done, 50), now)
            if iteration > 1:
                estimates.append((pace.left(Steps(iteration, done, 50), 6, now), whole - now))
        now += validation
    assert all(abs(left - truth) < 0.15 * whole for left, truth in estimates)
    lefts = [left for left, _ in estimates]
    growth = max(after - min(lefts[: i + 1]) for i, after in enumerate(lefts[1:]))
    assert growth < 0.02 * whole


def test_a_log_gets_lines_now_and_then_also_within_an_iteration(clock: Any) -> None:
    out = io.StringIO()
    progress = TrainingProgress(1, out=out)
    for second in range(3600):
        clock.now = second
        progress.see([], Steps(1, second, 3600))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("training: iteration 1 of 1, step 20 of 3,600")
    assert len(lines) < 50  # rarer and rarer


def test_the_end_is_seen_and_all_lines_are_handed_on() -> None:
    out, seen = io.StringIO(), []
    state: tuple[list[Any], Steps | None] = ([], None)
    with watched(TrainingProgress(1, out=out), lambda: state, 60, seen.append):
        state = ([line(1)], Steps(1, 4, 4))
    assert seen == [[line(1)]]
    assert out.getvalue().startswith("training: 1 of 1 iterations")
