"""Ctrl-C and SIGTERM in training and encoding, in a process and a Ray of its own."""

import signal
import time
import uuid
from pathlib import Path

import pytest
import torch
from support.models import write_model
from support.processes import as_options, marked_processes, start, terminate, wait_for
from support.trained import last_state, photo_store
from support.trials import TAKES_MINUTES, takes_minutes
from support.users import TINY

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.directories import LOCK
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.hasher import fingerprint
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.training.checkpoints import LAST
from schn_ray.training.config import train_config
from schn_ray.training.recorder import CHECKPOINTS, read_metrics
from schn_ray.training.run import train_locally

pytestmark = pytest.mark.slow  # starts two clusters of its own

SETTINGS = (*TINY, "schedule.iterations=4", "schedule.epochs=6", "schedule.batch_size=4")
RAY = ("--workers", 1)
ATTEMPTS = 5
EPOCHS = 30
LONG = ("schedule.iterations=1", f"schedule.epochs={EPOCHS}")  # many steps of one iteration


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_store(tmp_path_factory.mktemp("interrupt"), {"cat": 16, "dog": 16})


def train(store: Path, out: Path) -> list[object]:
    return ["train", store, "--out", out, "--preset", "digits", *as_options(SETTINGS)]


def interrupted(store: Path, tmp_path: Path, mark: str) -> tuple[Path, int, str]:
    """Train by the command and send it Ctrl-C after an iteration; return run, exit code and text.

    On a busy machine the signal may come after the last iteration: then once more, in another run.
    """
    for attempt in range(ATTEMPTS):
        out = tmp_path / f"run-{attempt}"
        process = start(*train(store, out), mark=mark)
        wait_for(lambda out=out: len(read_metrics(out)) >= 1)
        process.send_signal(signal.SIGINT)
        _, text = process.communicate(timeout=600)
        if len(read_metrics(out)) < 4:
            return out, process.returncode, text
    pytest.fail(f"training ended before the signal, {ATTEMPTS} times")


@takes_minutes
def test_ctrl_c_stops_says_how_to_go_on_and_leaves_no_process(store: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers have
    train_locally(train_config("digits", None, SETTINGS), store, tmp_path / "whole")
    torch.set_num_threads(threads)

    mark = uuid.uuid4().hex
    out, code, text = interrupted(store, tmp_path, mark)
    assert code == 130, text
    assert "to go on, run the same command again" in text
    assert f"train {store} --out {out}" in text
    assert "Traceback" not in text
    wait_for(lambda: not marked_processes(mark))
    assert len(read_metrics(out)) < 4
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "run")

    again = start(*train(store, out), mark=mark)
    _, text = again.communicate(timeout=600)
    assert again.returncode == 0, text
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    assert [line["iteration"] for line in read_metrics(out)] == [1, 2, 3, 4]


def terminated(store: Path, tmp_path: Path, *options: object) -> Path:
    """Train by the command and send it SIGTERM within its only iteration; return the run.

    On a busy machine the iteration may end before the signal, or the time to save may be too short:
    then once more, in another run.
    """
    settings = as_options((*SETTINGS, *LONG))
    for attempt in range(ATTEMPTS):
        out, mark = tmp_path / f"terminated-{attempt}", uuid.uuid4().hex
        process = start(
            "train", store, "--out", out, "--preset", "digits", *settings, *options, mark=mark
        )
        lock = out / CHECKPOINTS / LOCK
        wait_for(lambda lock=lock, process=process: lock.exists() or process.poll() is not None)
        time.sleep(0.3)  # some steps
        if terminate(process, mark) == 143 and (out / CHECKPOINTS / LAST).exists():
            return out
    pytest.fail(f"there was no time to save, {ATTEMPTS} times")


@pytest.mark.parametrize(
    "options", [pytest.param((), id="here", marks=TAKES_MINUTES), pytest.param(RAY, id="on Ray")]
)
def test_sigterm_saves_within_an_iteration_first(
    options: tuple[object, ...], store: Path, tmp_path: Path
) -> None:
    out = terminated(store, tmp_path, *options)
    assert read_metrics(out) == []
    saved = torch.load(out / CHECKPOINTS / LAST, weights_only=True)["learner"]["midway"]
    assert saved["epoch"] < EPOCHS
    assert not [path for path in out.rglob("*") if path.name in (".halt", "last.pt.partial")]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = train_config("digits", None, (*SETTINGS, *LONG))
    for run in (out, tmp_path / "whole"):
        train_locally(config, store, run)
    torch.set_num_threads(threads)
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    torch.testing.assert_close(last_state(out), last_state(tmp_path / "whole"), rtol=0, atol=0)


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    model, out, mark = write_model(tmp_path / "model"), tmp_path / "codes", uuid.uuid4().hex
    command = ("encode", "digits", "--model", model, "--out", out, "--workers", 1)
    process = start(*command, mark=mark)
    wait_for(lambda: list(out.glob("data/part-*.parquet")) or process.poll() is not None)
    assert terminate(process, mark) == 143

    source = open_source("digits", SourceConfig())
    for path in (out, tmp_path / "whole"):
        encode_source(source, model, path, EncodeConfig())
        open_artefact(path, "codes").check()
    finished, whole = (read_manifest(path, "codes") for path in (out, tmp_path / "whole"))
    assert finished.fingerprint == whole.fingerprint
