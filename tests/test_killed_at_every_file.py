"""Verbs that die just before the nth thing they do to a file, for every n, and are run again.

A process of its own dies each time, without any clean-up; then the same call has to end at the very
directory that nobody disturbed.
"""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import write_tree
from users import TINY

from schn_ray.config import EncodeConfig, EvaluateConfig, PrepareConfig, SourceConfig, load
from schn_ray.config import TrainConfig as Training
from schn_ray.encode import encode
from schn_ray.evaluation import evaluate
from schn_ray.index import build_index
from schn_ray.manifest import AlreadyDone, read_manifest, verify_files
from schn_ray.sources import open_source
from schn_ray.store import prepare
from schn_ray.training import train_here

SETTINGS = (*TINY, "schedule.iterations=2", "schedule.epochs=1", "schedule.batch_size=8")
SHARDS = SourceConfig(shard_rows=10)
_DIED = 9
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and all that comes of them undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_tree(root / "photos", {"cat": 14, "dog": 14})
    for work in VERBS.values():
        work(root, root)
    return root


def prepared(root: Path, out: Path) -> None:
    source = open_source(str(root / "photos"), SHARDS)
    prepare(source, PrepareConfig(source=SHARDS, validation_share=0.3), out / "store")


def trained(root: Path, out: Path) -> None:
    train_here(load(Training, "digits", None, SETTINGS), root / "store", out / "run")


def encoded(root: Path, out: Path) -> None:
    source = open_source(str(root / "photos"), SHARDS)
    encode(source, root / "run", out / "codes", EncodeConfig(source=SHARDS))


def indexed(root: Path, out: Path) -> None:
    build_index(root / "codes", out / "index")


def evaluated(root: Path, out: Path) -> None:
    config = EvaluateConfig(controls={"train_rows": 0})
    evaluate(root / "run", root / "store", out / "evaluation", config)


VERBS: dict[str, Callable[[Path, Path], None]] = {
    "store": prepared,
    "run": trained,
    "codes": encoded,
    "index": indexed,
    "evaluation": evaluated,
}


def dies(work: Callable[[Path, Path], None], root: Path, out: Path, before: int) -> bool:
    """Run in a process that dies before the nth change below a folder; tell whether it did."""
    child = os.fork()
    if child == 0:
        changes = 0

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal changes
            if not _is_change(event, arguments) or str(out) not in str(arguments[0]):
                return
            if changes == before:
                os._exit(_DIED)
            changes += 1

        sys.addaudithook(look)
        try:
            work(root, out)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _DIED), f"another end than death before change {before}"
    return code == _DIED


def _is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in _CHANGES


def content(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what was counted and every file's hash; of those that have clock times, the name."""
    manifest = read_manifest(path, kind)
    verify_files(path, manifest)
    timed = ("metrics.jsonl", "checkpoints/")
    return manifest.counts, {
        name: "" if kind == "run" and name.startswith(timed) else sha256
        for name, sha256 in manifest.files.items()
    }


@pytest.mark.parametrize("kind", VERBS)
def test_the_same_call_ends_at_the_same_directory(kind: str, made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    work, wanted = VERBS[kind], content(made / kind, kind)
    before = 0
    while dies(work, made, tmp_path, before):
        with suppress(AlreadyDone):  # it died between the manifest and the end
            work(made, tmp_path)
        assert content(tmp_path / kind, kind) == wanted, f"killed before change {before}"
        assert not list(tmp_path.rglob("*.partial")), f"killed before change {before}"
        shutil.rmtree(tmp_path / kind)
        before += 1
    assert before > 3
