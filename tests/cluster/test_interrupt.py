"""Ctrl-C in training and SIGTERM in encoding, in a process and a Ray of its own."""

import signal
import time
import uuid
from pathlib import Path

import pytest
import torch
from support.models import write_model
from support.processes import as_options, marked_processes, start, wait_for
from support.trained import photo_store
from support.users import TINY

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.hasher import fingerprint
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.training.config import train_config
from schn_ray.training.recorder import read_metrics
from schn_ray.training.run import train_locally

pytestmark = pytest.mark.slow  # starts two clusters of its own

SETTINGS = (*TINY, "schedule.iterations=4", "schedule.epochs=6", "schedule.batch_size=4")
ATTEMPTS = 5


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


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    model, out, mark = write_model(tmp_path / "model"), tmp_path / "codes", uuid.uuid4().hex
    command = ("encode", "digits", "--model", model, "--out", out, "--workers", 1)
    process = start(*command, mark=mark)
    wait_for(lambda: list(out.glob("part-*.parquet")) or process.poll() is not None)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=600)
    assert process.returncode == 143, text
    assert time.monotonic() - sent < 10
    assert "terminated; to go on, run the same command again" in text
    assert "Traceback" not in text
    assert "SIGTERM" not in text  # Ray's trace begins with it
    wait_for(lambda: not marked_processes(mark))

    source = open_source("digits", SourceConfig())
    for path in (out, tmp_path / "whole"):
        encode_source(source, model, path, EncodeConfig())
        open_artefact(path, "codes").check()
    finished, whole = (read_manifest(path, "codes") for path in (out, tmp_path / "whole"))
    assert finished.fingerprint == whole.fingerprint
