"""SIGKILL and lost nodes in the middle of training: it ends as the undisturbed run.

``make test`` kills one worker. SCHN_RAY_TRIALS=10 tries ten random moments of every kind, a minute
each.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from support.processes import descendants, started, wait_for
from support.shared_training import ITERATIONS, OPTIONS, train_by_two
from support.trained import last_state
from support.trials import takes_minutes
from support.users import Run

from schn_ray.models.model_files import fingerprint
from schn_ray.training.metrics_file import read_metrics

TRIALS = range(int(os.environ.get("SCHN_RAY_TRIALS", "1")))
ATTEMPTS = 5


@pytest.fixture
def undisturbed(runs: dict[int, Path]) -> Path:
    return runs[2]


def assert_same(run: Path, undisturbed: Path) -> None:
    ours, theirs = last_state(run), last_state(undisturbed)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert fingerprint(run) == fingerprint(undisturbed)
    assert [line["iteration"] for line in read_metrics(run)] == list(range(1, ITERATIONS + 1))
    for line, other in zip(read_metrics(run), read_metrics(undisturbed), strict=True):
        assert (line["loss"], line["validation_map"]) == (other["loss"], other["validation_map"])


def assert_close(run: Path, undisturbed: Path) -> None:
    """Compare runs of other numbers of workers: sums are rounded in another order."""
    ours, theirs = last_state(run), last_state(undisturbed)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours["packed"], theirs["packed"])


def moment(seed: int) -> tuple[int, float]:
    """Draw after which iteration to strike, and how long after; well before the end."""
    draw = random.Random(seed)
    return draw.randrange(ITERATIONS - 4), draw.random() / 2


def command(store: Path, out: Path, workers: str = "2") -> list[object]:
    return ["train", store, "--out", out, *OPTIONS, "--workers", workers, "--keep-checkpoints"]


def training_workers() -> list[psutil.Process]:
    return descendants(os.getpid(), "TrainWorker")


def train_and_kill_a_worker(train: Callable[[], None], out: Path, trial: int) -> bool:
    """Train, with a SIGKILL for one of two workers; tell whether it came before the end."""
    iteration, seconds = moment(trial)
    ended, killed = threading.Event(), threading.Event()

    def two_work_or_it_ended() -> bool:
        at_work = len(read_metrics(out)) >= iteration and len(training_workers()) == 2
        return at_work or ended.is_set()

    def kill() -> None:
        wait_for(two_work_or_it_ended)
        if ended.wait(seconds):
            return
        with suppress(IndexError, psutil.NoSuchProcess):  # the workers end at this moment
            training_workers()[trial % 2].kill()
            killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        train()
    finally:
        ended.set()
        killer.join()
    return killed.is_set()


@pytest.mark.parametrize("trial", TRIALS)
def test_a_worker_is_killed(
    schn_ray: Run, store: Path, undisturbed: Path, tmp_path: Path, trial: int
) -> None:
    def train(out: Path) -> None:
        answer = schn_ray(*command(store, out))
        assert answer.code == 0, answer.err

    for attempt in range(ATTEMPTS):  # on a busy machine the kill may come after the last iteration
        out = tmp_path / f"run-{attempt}"
        killed = train_and_kill_a_worker(partial(train, out), out, trial)
        assert_same(out, undisturbed)
        if killed:
            break
    assert killed, "training ended before the kill, every time"


def train_until_killed(
    store: Path, out: Path, workers: int, iteration: int, seconds: float
) -> None:
    """Train by a command on the session's Ray; SIGKILL it some time after an iteration."""
    address = ray.get_runtime_context().gcs_address
    with started(*command(store, out, f"{workers}"), address=address) as process:
        wait_for(lambda: out.exists() and len(read_metrics(out)) >= iteration)
        time.sleep(seconds)
        process.kill()


@takes_minutes
@pytest.mark.parametrize("trial", TRIALS)
def test_the_driver_is_killed(store: Path, undisturbed: Path, tmp_path: Path, trial: int) -> None:
    out = tmp_path / "run"
    train_until_killed(store, out, 2, *moment(trial + 100))
    train_by_two(store, out)  # at once: the old workers may still be writing
    assert_same(out, undisturbed)


@takes_minutes
@pytest.mark.parametrize("trial", TRIALS)
def test_workers_come_and_go(store: Path, undisturbed: Path, tmp_path: Path, trial: int) -> None:
    out = tmp_path / "run"
    # a moment later, as a checkpoint is written after the line of its iteration
    train_until_killed(store, out, 2, 1, 0.5)
    train_until_killed(store, out, 1, 2, 0.5)
    train_by_two(store, out)
    workers = [line["workers"] for line in read_metrics(out)]
    assert workers[0] == workers[-1] == 2
    assert 1 in workers
    assert_close(out, undisturbed)


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A cluster of two nodes, a CPU each, beside the session's own."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@contextmanager
def train_and_lose_a_node(
    store: Path, out: Path, nodes: Cluster, workers: str, iteration: int, seconds: float
) -> Iterator[None]:
    """Train by a command on both nodes; remove one some time after an iteration, yield, wait."""
    with started(*command(store, out, workers), address=nodes.address) as process:
        wait_for(lambda: out.exists() and len(read_metrics(out)) >= iteration)
        time.sleep(seconds)
        (node,) = nodes.worker_nodes
        nodes.remove_node(node, allow_graceful=False)
        yield
        assert process.wait(300) == 0


@takes_minutes
@pytest.mark.parametrize("trial", TRIALS)
def test_a_node_is_lost_and_another_comes(
    store: Path, undisturbed: Path, nodes: Cluster, tmp_path: Path, trial: int
) -> None:
    out = tmp_path / "run"
    with train_and_lose_a_node(store, out, nodes, "2", *moment(trial + 200)):
        nodes.add_node(num_cpus=1)
    assert_same(out, undisturbed)


@takes_minutes
@pytest.mark.parametrize("trial", TRIALS)
def test_a_node_is_lost_for_good(
    store: Path, undisturbed: Path, nodes: Cluster, tmp_path: Path, trial: int
) -> None:
    out = tmp_path / "run"
    iteration, seconds = moment(trial + 300)
    with train_and_lose_a_node(store, out, nodes, "1:2", iteration + 1, seconds):
        pass
    workers = [line["workers"] for line in read_metrics(out)]
    assert (workers[0], workers[-1]) == (2, 1)
    assert_close(out, undisturbed)
