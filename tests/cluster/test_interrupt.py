"""Ctrl-C and SIGKILL in the middle of training, in a process and a Ray of its own."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import write_tree
from users import TINY

from schn_ray.config import PrepareConfig, SourceConfig
from schn_ray.errors import SchnRayError
from schn_ray.hasher import fingerprint
from schn_ray.manifest import read_manifest
from schn_ray.sources import open_source
from schn_ray.store import prepare
from schn_ray.training import read_metrics

SETTINGS = (*TINY, "schedule.iterations=4", "schedule.epochs=6", "schedule.batch_size=4")
MARK = "SCHN_RAY_TEST_MARK"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupt")
    tree = write_tree(folder / "photos", {"cat": 16, "dog": 16})
    prepare(open_source(str(tree), SourceConfig()), PrepareConfig(), folder / "store")
    return folder / "store"


def start(store: Path, out: Path, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "schn_ray.cli", "train", str(store), "--out", str(out)]
    command += ["--preset", "digits", *(word for s in SETTINGS for word in ("--set", s))]
    environment = os.environ | {MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def marked_processes(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_ctrl_c_stops_says_how_to_go_on_and_leaves_no_process(store: Path, tmp_path: Path) -> None:
    undisturbed = start(store, tmp_path / "whole", "undisturbed")
    assert undisturbed.wait(300) == 0

    out, mark = tmp_path / "run", uuid.uuid4().hex
    process = start(store, out, mark)
    wait_for(lambda: len(read_metrics(out)) >= 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "to go on, run the same command again" in said
    assert f"train {store} --out {out}" in said
    assert "Traceback" not in said
    wait_for(lambda: not marked_processes(mark), 30)
    assert len(read_metrics(out)) < 4
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "run")

    again = start(store, out, mark)
    assert again.wait(300) == 0
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    assert [line["iteration"] for line in read_metrics(out)] == [1, 2, 3, 4]
