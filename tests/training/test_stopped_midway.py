"""A run that is asked to stop saves within an iteration, and ends as the undisturbed one."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from support.gloo import run_on_workers
from support.trained import last_state, photo_store
from support.users import TINY

from schn_ray.core.interrupts import time_to_save
from schn_ray.core.workers import Workers
from schn_ray.data.config import PrepareConfig
from schn_ray.data.store.reader import open_store
from schn_ray.models.model_files import fingerprint
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import build_run, finish_run
from schn_ray.training.state import StoppedMidway

SETTINGS = (
    "schedule.warm_up=0.75",
    "schedule.decay_kind=cosine",
    *TINY,
    "schedule.iterations=2",
    "schedule.epochs=3",
    "schedule.samples=22",
    "schedule.batch_size=8",
)
CHECKS = 2 * (3 * 3 + 2)  # a step of each batch, and two batches of validation, per iteration
CPU = torch.device("cpu")


def small_config() -> TrainConfig:
    return train_config("digits", None, SETTINGS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PrepareConfig(train_share=0.6, validation_share=0.3)
    folder = tmp_path_factory.mktemp("midway")
    return photo_store(folder, {"cat": 16, "dog": 16, "owl": 16}, config)


@pytest.fixture(scope="module")
def undisturbed(store: Path) -> Path:
    train(store, store.parent / "undisturbed")
    return store.parent / "undisturbed"


def train(
    store: Path,
    out: Path,
    asked: Callable[[], bool] = lambda: False,
    workers: Workers | None = None,
) -> None:
    """Train, or go on, until it is asked to stop."""
    opened = open_store(store)
    run = build_run(small_config(), opened, workers or Workers(), CPU)
    run.stop_requested = asked
    finish_run(run, opened, out)


def at_check(number: int) -> Callable[[], bool]:
    """Return a question that is answered with yes for the nth time."""
    left = iter(range(number))
    return lambda: next(left, None) is None


def measured(run: Path) -> list[dict[str, Any]]:
    timed = {"images_per_second": 0, "data_wait": 0, "workers": 0}
    return [line | timed for line in read_metrics(run)]


def same(out: Path, expected: Path) -> None:
    torch.testing.assert_close(last_state(out), last_state(expected), rtol=0, atol=0)
    assert fingerprint(out / "model") == fingerprint(expected / "model")
    assert measured(out) == measured(expected)


@pytest.mark.parametrize("number", [2, CHECKS // 2 - 1])
def test_wherever_it_stops_it_goes_on_to_the_same_bits(
    number: int, store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedMidway):
        train(store, out, at_check(number))
    assert read_metrics(out) == []
    train(store, out)
    same(out, undisturbed)


@pytest.mark.slow
def test_stopped_again_and_again_it_still_ends(
    store: Path, undisturbed: Path, tmp_path: Path
) -> None:
    stops = 0
    while read_metrics(tmp_path / "run")[1:] == []:  # a validation that was stopped begins anew
        with suppress(StoppedMidway):
            train(store, tmp_path / "run", at_check(2))
        stops += 1
    assert stops == CHECKS // 2 + 1
    same(tmp_path / "run", undisturbed)


def stopped_by_the_second(workers: Workers) -> None:
    """Train; only the second worker is asked to stop, in the third epoch."""
    store, out = Path("store").resolve(), Path("stopped").resolve()
    asked = at_check(7) if workers.rank == 1 else lambda: False
    with pytest.raises(StoppedMidway):
        train(store, out, asked, workers)


def gone_on(workers: Workers) -> None:
    train(Path("store").resolve(), Path("stopped").resolve(), workers=workers)


def whole(workers: Workers) -> None:
    train(Path("store").resolve(), Path("whole").resolve(), workers=workers)


@pytest.mark.slow
def test_workers_stop_together_and_go_on_in_any_number(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").symlink_to(store)
    run_on_workers(whole, tmp_path / "a")
    run_on_workers(stopped_by_the_second, tmp_path / "b")
    assert read_metrics("stopped") == []
    shutil.copytree("stopped", "alone")
    run_on_workers(gone_on, tmp_path / "c")
    same(tmp_path / "stopped", tmp_path / "whole")
    train(store, tmp_path / "alone")
    for key, value in last_state(tmp_path / "alone").items():
        torch.testing.assert_close(
            value, last_state(tmp_path / "whole")[key], rtol=1e-3, atol=1e-4, msg=key
        )


class Ended(BaseException):
    """What the process's own handler raises."""


@pytest.fixture
def handler() -> Iterator[Callable[..., None]]:
    """A handler of SIGTERM for the length of a test."""

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield end
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("seconds", "signals", "reaches"), [(60, 1, "its end"), (60, 2, "two"), (0.01, 1, "a pause")]
)
def test_sigterm_waits_for_the_block_but_not_for_ever(
    seconds: float, signals: int, reaches: str, handler: Callable[..., None]
) -> None:
    reached = []

    def block() -> None:
        with time_to_save(seconds, lambda: reached.append("asked")) as asked:
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
            reached.append(asked.is_set())
            if reaches == "a pause":
                signal.pause()
            reached.append("its end")

    with pytest.raises(Ended):
        block()
    assert (
        reached
        == {
            "its end": ["asked", True, "its end"],
            "two": ["asked"],
            "a pause": ["asked", True],
        }[reaches]
    )
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with time_to_save():
        pass
