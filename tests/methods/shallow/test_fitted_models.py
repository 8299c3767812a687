"""Runs of fitted methods: the same files of any layout, on any number of workers, after kills."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from support.gloo import run_on_workers
from support.kills import Killed
from support.trials import takes_minutes

from schn_ray.core.workers import Workers
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.methods.base import ShallowMethod
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.methods.shallow import feature_rows
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.run import build_run, finish_run, train_locally

ROWS, WIDTH, BITS = 800, 64, 8
FITTED = [name for name in METHODS if issubclass(find_method(name), ShallowMethod)]
SMALL = {
    "itq": ("rounds=6",),
    "itq-cca": ("rounds=6",),
    "agh": ("anchors=40",),
    "sgh": ("anchors=30",),
    "ocb": ("centres=20", "rounds=3"),
    "ksh": ("anchors=30", "rows=90", "iterations=20"),
    "lfh": ("anchors=30", "rounds=5"),
    "sdh": ("anchors=30",),
    "fsdh": ("anchors=30",),
    "cosdish": ("anchors=30", "rounds=4", "columns=20"),
    "ssah": ("anchors=30", "rounds=4"),
    "isch": ("anchors=30", "rounds=4"),
}
ROUNDS = [name for name in FITTED if name in SMALL and name != "agh"]
QUICK = ("itq", "cosdish")
EACH = [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in FITTED if n not in QUICK)]

Content = dict[str, Any]


def write_store(folder: Path, shard_rows: int) -> Path:
    """Make a store of digits as vectors; vectors have 16 times as many rows a shard."""
    folder.mkdir()
    digits = load_digits()
    np.save(folder / "digits.npy", digits.data[:ROWS].astype(np.float32))
    labels = "".join(f"{label}\n" for label in digits.target[:ROWS])
    (folder / "digits.labels.txt").write_text(labels)
    source = SourceConfig(shard_rows=shard_rows)
    config = PrepareConfig(source=source, train_share=0.7, validation_share=0.1, query_share=0.2)
    prepare_store(open_source(str(folder / "digits.npy"), source), config, folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same rows in a few shards and in 50."""
    folder = tmp_path_factory.mktemp("stores")
    stores = {shards: write_store(folder / str(shards), ROWS // shards // 16) for shards in (1, 50)}
    counts = {shards: len(list(store.glob("rows-*.arrow"))) for shards, store in stores.items()}
    assert counts[1] < 5
    assert counts[50] >= 50
    return stores


@pytest.fixture(autouse=True)
def several_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 504 training rows are summed in six shards, whatever those of the store."""
    monkeypatch.setattr(feature_rows, "_SHARD_ROWS", 100)


def settings_of(name: str) -> TrainConfig:
    small = (f"method.{line}" for line in SMALL.get(name, ()))
    base = {"backbone": {"name": f"features:{WIDTH}", "weights": None}}
    return train_config(None, None, (f"bits={BITS}", *small), name, base)


def content_of(run: Path) -> Content:
    """All of a run that is not a checkpoint or a time."""
    files = [run / "learned.parquet", *sorted((run / "model").iterdir())]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = [(line["iteration"], line["loss"], line["validation_map"]) for line in lines]
    return {file.name: file.read_bytes() for file in files} | {"metrics": measured}


@pytest.mark.parametrize("name", EACH)
def test_shards_of_the_store_do_not_change_a_bit(
    name: str, stores: dict[int, Path], tmp_path: Path
) -> None:
    for shards, store in stores.items():
        train_locally(settings_of(name), store, tmp_path / str(shards))
    one, fifty = (content_of(tmp_path / str(shards)) for shards in stores)
    assert one == fifty
    numbers, losses, scores = zip(*one["metrics"], strict=True)
    assert numbers == tuple(range(1, len(numbers) + 1))
    assert (len(numbers) > 1) == (name in ROUNDS), "a line a round"
    assert [score is not None for score in scores] == [False] * (len(scores) - 1) + [True]
    if name in ROUNDS and name != "sgh":
        assert all(np.isfinite(loss["objective"]) for loss in losses)


def train_each(workers: Workers) -> None:
    """Train all fitted methods on the workers of this group."""
    feature_rows._SHARD_ROWS = 100
    folder = Path.cwd()
    store = open_store(folder / "store")
    for name in FITTED:
        run = build_run(settings_of(name), store, workers, torch.device("cpu"))
        finish_run(run, store, folder / f"{name}-{workers.size}")


@takes_minutes
def test_workers_do_not_change_a_bit(
    stores: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").symlink_to(stores[50])
    train_each(Workers())
    for size in (2, 3):
        run_on_workers(train_each, tmp_path / f"workers-{size}", size)
        for name in FITTED:
            assert content_of(Path(f"{name}-{size}")) == content_of(Path(f"{name}-1")), name


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many shards of features have been read, and at which one the process dies."""
    counts = [0, np.inf]
    shard = feature_rows.FeatureRows._shard

    def counted(self: feature_rows.FeatureRows, number: int) -> Any:
        counts[0] += 1
        if counts[0] > counts[1]:
            raise Killed
        return shard(self, number)

    monkeypatch.setattr(feature_rows.FeatureRows, "_shard", counted)
    return counts


def check_kills(name: str, store: Path, folder: Path, reads: list[float]) -> None:
    """Kill a fit at ten of the shards that it reads, each in a new run, and let it go on."""
    train_locally(settings_of(name), store, folder / "undisturbed")
    expected, total = content_of(folder / "undisturbed"), int(reads[0])
    assert total >= 10
    for moment in range(10):
        reads[:] = [0, total * moment // 10]
        out = folder / str(moment)
        with pytest.raises(Killed):
            train_locally(settings_of(name), store, out)
        assert not (out / "manifest.json").exists()
        reads[:] = [0, np.inf]
        train_locally(settings_of(name), store, out)
        assert content_of(out) == expected, f"killed at read {total * moment // 10} of {total}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdh", "ssah", "itq"])
def test_a_fit_killed_at_ten_moments_ends_as_an_undisturbed_one(
    name: str, stores: dict[int, Path], tmp_path: Path, reads: list[float]
) -> None:
    check_kills(name, stores[1], tmp_path, reads)


@takes_minutes
@pytest.mark.parametrize("name", [name for name in ROUNDS if name not in ("sdh", "ssah", "itq")])
def test_every_fit_killed_at_ten_moments_ends_as_an_undisturbed_one(
    name: str, stores: dict[int, Path], tmp_path: Path, reads: list[float]
) -> None:
    check_kills(name, stores[1], tmp_path, reads)
