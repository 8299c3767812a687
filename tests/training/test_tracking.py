"""Trackers: each iteration once, in one run, whatever happens to the tracker or to the training."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kills import killed_after
from support.trained import photo_store
from support.trials import takes_minutes
from support.users import TINY

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig
from schn_ray.models.model_files import fingerprint
from schn_ray.training import tracking
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics, scalars
from schn_ray.training.run import train_locally
from schn_ray.training.tracking import TrackedRun, require_tracker, tracked

CONFIG = train_config(
    "digits",
    None,
    (*TINY, "schedule.iterations=3", "schedule.epochs=1", "schedule.samples=16", "bits=8"),
)


class Book:
    """A tracker in memory: what each of its runs was sent."""

    def __init__(self) -> None:
        self.sent: dict[str, list[int]] = defaultdict(list)
        self.values: dict[tuple[str, int], dict[str, float]] = {}
        self.settings: dict[str, Any] = {}
        self.ended: list[bool] = []
        self.known: int | None = None

    def __call__(self, run: TrackedRun) -> Page:
        self.settings = dict(run.settings)
        return Page(self, run.id or f"run-{len(self.sent)}")


class Page:
    def __init__(self, book: Book, id: str) -> None:
        self.book, self.id, self.iteration = book, id, book.known

    def log(self, iteration: int, values: dict[str, float]) -> None:
        self.book.sent[self.id].append(iteration)
        self.book.values[self.id, iteration] = values

    def end(self, finished: bool) -> None:
        self.book.ended.append(finished)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PrepareConfig(train_share=0.6, validation_share=0.3)
    return photo_store(tmp_path_factory.mktemp("tracking"), {"cat": 12, "dog": 12}, config)


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    """A tracker in MLflow's place."""
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", book := Book())
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    return book


def lines(*iterations: int) -> list[dict[str, Any]]:
    return [{"iteration": i, "loss": {"pairs": 1 / i}, "validation_map": None} for i in iterations]


def send(out: Path, *batches: list[dict[str, Any]]) -> None:
    with tracked("mlflow", str(out), {"bits": 8, "schedule": {"iterations": 3}}) as to_tracker:
        for batch in batches:
            to_tracker(batch)


def test_a_tracker_gets_settings_and_all_numbers(book: Book, tmp_path: Path) -> None:
    send(tmp_path / "run", lines(1), lines(1, 2))
    assert book.sent == {"run-0": [1, 2]}
    assert book.values["run-0", 2] == {"loss/pairs": 0.5}
    assert book.settings == {"bits": 8, "schedule.iterations": 3}
    assert book.ended == [True]


def test_a_run_that_dies_and_goes_on_is_one_run_and_the_result_is_the_same(
    book: Book, store: Path, tmp_path: Path
) -> None:
    with killed_after(2):  # its checkpoint is written, and nobody has heard of it
        train_locally(CONFIG, store, tmp_path / "run", track="mlflow")
    assert book.sent == {"run-0": [1]}
    train_locally(CONFIG, store, tmp_path / "run", track="mlflow")
    assert book.sent == {"run-0": [1, 2, 3]}
    assert book.ended == [False, True]
    for line in read_metrics(tmp_path / "run"):
        assert book.values["run-0", line["iteration"]] == dict(scalars(line))
    train_locally(CONFIG, store, tmp_path / "untracked")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "untracked")


def test_iterations_that_are_trained_again_are_not_sent_again(book: Book, tmp_path: Path) -> None:
    send(tmp_path / "run", lines(1, 2))
    send(tmp_path / "run", lines(1), lines(1, 2), lines(1, 2, 3))  # as of a fit, or a damaged state
    assert book.sent == {"run-0": [1, 2, 3]}


def test_what_the_tracker_itself_knows_counts(book: Book, tmp_path: Path) -> None:
    """Another machine has sent more than this one's file says."""
    send(tmp_path / "run", lines(1))
    book.known = 2
    send(tmp_path / "run", lines(1, 2, 3))
    assert book.sent == {"run-0": [1, 3]}


def test_another_tracker_begins_anew(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tracker.json").write_text('{"tracker": "wandb", "id": "x", "iteration": 9}')
    send(tmp_path / "run", lines(1))
    assert book.sent == {"run-0": [1]}


@pytest.mark.parametrize("method", ["__init__", "log", "end"])
def test_a_tracker_that_fails_is_said_once(
    book: Book,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(Page, method, fail)
    send(tmp_path / "run", lines(1), lines(1, 2), lines(1, 2, 3))
    err = capsys.readouterr().err
    assert err.count("mlflow has not got all of the run") == 1
    assert "(ConnectionError: no route)" in err


def test_a_tracker_that_hangs_does_not_hold_up_the_run(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()
    monkeypatch.setattr(Page, "log", lambda *_: release.wait())
    monkeypatch.setattr(tracking, "_END_S", 0.05)
    send(tmp_path / "run", lines(1), lines(1, 2))
    release.set()
    assert capsys.readouterr().err.count("it does not answer") == 1


def test_mistakes_are_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SchnRayError, match=r"no tracker 'wanbd'; did you mean 'wandb'\?"):
        require_tracker("wanbd")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[trackio\]'"):
        require_tracker("trackio")


# The real libraries, each in a process that dies after the second iteration and in one that goes on

DYING = """
import os, sys
from pathlib import Path
from schn_ray.training import run
from schn_ray.training.recorder import Recorder
from training.test_tracking import CONFIG
store, out, tracker, last = sys.argv[1:]
train_run = run.train_run
def dying(state, report):
    def reported(measured, best):
        report(measured, best)
        if measured.iteration == int(last):
            while not Path(out, "tracker.json").is_file() or f'"iteration": {last}' not in Path(
                out, "tracker.json"
            ).read_text():
                pass
            __import__("time").sleep(1.0)  # for what the library does by itself
            os._exit(9)
    train_run(state, reported)
if last != "0":
    run.train_run = dying
run.train_locally(CONFIG, store, out, track=tracker)
"""


def train_dying(tracker: str, store: Path, folder: Path, **variables: object) -> None:
    """Train in two processes; the first one dies as by SIGKILL."""
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    tests = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([tests, *sys.path])
    for last, code in (("2", 9), ("0", 0)):
        done = subprocess.run(
            [sys.executable, "-c", DYING, str(store), str(folder / "run"), tracker, last],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert "has not got all" not in done.stderr, done.stderr
        assert done.stdout == ""


@takes_minutes
def test_mlflow(store: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    train_dying("mlflow", store, tmp_path, MLFLOW_TRACKING_URI=uri)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("schn-ray").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["schedule.iterations"] == "3"
    measured = read_metrics(tmp_path / "run")
    history = client.get_metric_history(run.info.run_id, "validation_map")
    assert [(m.step, m.value) for m in history] == [
        (line["iteration"], line["validation_map"]) for line in measured
    ]


@takes_minutes
def test_wandb(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    train_dying("wandb", store, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    folders = sorted(tmp_path.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    assert len({folder.name.rsplit("-", 1)[1] for folder in folders}) == 1
    steps = [step for folder in folders for step in wandb_steps(folder)]
    assert steps in ([1, 2, 3], [1, 3], [3])  # what its own process had not written is lost


def wandb_steps(folder: Path) -> Iterator[int]:
    """Yield the steps in a folder that an offline run has written: a log as LevelDB writes them."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    data, at, payload = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        payload += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record, payload = wandb_internal_pb2.Record.FromString(payload), b""
            if record.WhichOneof("record_type") == "history":
                yield record.history.step.num


@takes_minutes
def test_trackio(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    train_dying("trackio", store, tmp_path, TRACKIO_DIR=tmp_path / "trackio")
    with sqlite3.connect(tmp_path / "trackio/schn-ray.db") as database:
        (config,) = database.execute("select config from configs").fetchall()
        rows = database.execute("select run_id, step, metrics from metrics order by id").fetchall()
    assert json.loads(config[0])["schedule.iterations"] == 3
    assert len({run for run, _, _ in rows}) == 1
    measured = [dict(scalars(line)) for line in read_metrics(tmp_path / "run")]
    assert [(step, json.loads(values)) for _, step, values in rows] == [*enumerate(measured, 1)]
