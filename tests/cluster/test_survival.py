"""SIGKILL and lost nodes in the middle of training: it ends as the undisturbed run.

SCHN_RAY_TRIALS=10 tries as many random moments of each kind; one is enough for every day.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from image_files import write_tree
from processes import as_options, descendants, started, wait_for
from ray.cluster_utils import Cluster
from users import TINY

from schn_ray.cluster.session import Demand
from schn_ray.cluster.train import train_on_ray
from schn_ray.config import PrepareConfig, SourceConfig, TrainConfig, load
from schn_ray.hasher import fingerprint
from schn_ray.loop import LAST
from schn_ray.sources import open_source
from schn_ray.store import prepare
from schn_ray.training import read_metrics

TRIALS = range(int(os.environ.get("SCHN_RAY_TRIALS", "1")))
ITERATIONS = 4
SETTINGS = (
    *TINY,
    f"schedule.iterations={ITERATIONS}",
    "schedule.epochs=4",
    "schedule.batch_size=4",
    "schedule.learning_rate=4e-5",
    "network.latent_dropout=0",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survival")
    tree = write_tree(folder / "photos", {"cat": 16, "dog": 16})
    prepare(open_source(str(tree), SourceConfig()), PrepareConfig(), folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def undisturbed(store: Path, cluster: None) -> Path:
    out = store.parent / "undisturbed"
    train(store, out)
    return out


def train(store: Path, out: Path, workers: int = 2) -> None:
    config = load(TrainConfig, "digits", None, SETTINGS)
    train_on_ray(config, store, out, Demand(workers, workers))


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def state(run: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(run / "checkpoints" / LAST, weights_only=True)
    moments = saved["optimisers"]["main"]["state"]
    return saved["networks"] | saved["codes"] | {f"{i}": m["exp_avg"] for i, m in moments.items()}


def assert_same(run: Path, undisturbed: Path) -> None:
    ours, theirs = state(run), state(undisturbed)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    assert fingerprint(run) == fingerprint(undisturbed)
    assert [line["iteration"] for line in read_metrics(run)] == list(range(1, ITERATIONS + 1))
    for line, other in zip(read_metrics(run), read_metrics(undisturbed), strict=True):
        assert (line["loss"], line["validation_map"]) == (other["loss"], other["validation_map"])


def moment(seed: int) -> tuple[int, float]:
    """Draw after which iteration to strike, and how long after."""
    draw = random.Random(seed)
    return draw.randrange(ITERATIONS), draw.random()


def command(store: Path, out: Path, workers: str = "2") -> list[object]:
    options = ["--preset", "digits", *as_options(SETTINGS), "--workers", workers]
    return ["train", store, "--out", out, *options]


def training_workers() -> list[psutil.Process]:
    return descendants(os.getpid(), "TrainWorker")


@pytest.mark.parametrize("trial", TRIALS)
def test_a_worker_is_killed(store: Path, undisturbed: Path, tmp_path: Path, trial: int) -> None:
    out = tmp_path / "run"
    iteration, seconds = moment(trial)
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: len(read_metrics(out)) >= iteration and len(training_workers()) == 2)
        time.sleep(seconds)
        victim = training_workers()[trial % 2]
        killed.append(victim.pid)
        victim.kill()

    with meanwhile(kill):
        train(store, out)
    assert killed
    assert_same(out, undisturbed)


@pytest.mark.parametrize("trial", TRIALS)
def test_the_driver_is_killed(store: Path, undisturbed: Path, tmp_path: Path, trial: int) -> None:
    out = tmp_path / "run"
    iteration, seconds = moment(trial + 100)
    with started(*command(store, out)) as process:
        wait_for(lambda: len(read_metrics(out)) >= iteration and out.exists())
        time.sleep(seconds)
        process.kill()
    train(store, out)  # at once: the old workers may still be writing
    assert_same(out, undisturbed)


@pytest.mark.parametrize("trial", TRIALS)
def test_workers_come_and_go(store: Path, undisturbed: Path, tmp_path: Path, trial: int) -> None:
    out = tmp_path / "run"

    def interrupt(after: int) -> None:
        wait_for(lambda: len(read_metrics(out)) >= after)
        os.kill(os.getpid(), signal.SIGINT)

    for workers, after in ((2, 1), (1, 2)):
        with meanwhile(partial(interrupt, after)), pytest.raises(KeyboardInterrupt):
            train(store, out, workers)
    train(store, out)
    ours, theirs = state(out), state(undisturbed)
    for name in ours.keys() - {"packed", "coded"}:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
    assert torch.equal(ours["packed"], theirs["packed"])


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    """A cluster of two nodes, a CPU each; nodes come and go from this thread only."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.parametrize("trial", TRIALS)
def test_a_node_is_lost_and_another_comes(
    store: Path, undisturbed: Path, nodes: Cluster, tmp_path: Path, trial: int
) -> None:
    out = tmp_path / "run"
    iteration, seconds = moment(trial + 200)
    with started(*command(store, out), address=nodes.address) as process:
        wait_for(lambda: len(read_metrics(out)) >= iteration and out.exists())
        time.sleep(seconds)
        (node,) = nodes.worker_nodes
        nodes.remove_node(node, allow_graceful=False)
        nodes.add_node(num_cpus=1)
        assert process.wait(300) == 0
    assert_same(out, undisturbed)
