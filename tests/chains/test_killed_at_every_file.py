"""Verbs that die just before the nth thing they do to a file, for every n, and are run again.

A process of its own dies each time, without any clean-up; then the same call has to end at the very
directory that nobody disturbed.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.image_files import encode_image, write_tree
from support.users import TINY

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.manifest import read_manifest, verify_files
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.search import SearchLimits
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SETTINGS = (*TINY, "schedule.iterations=2", "schedule.epochs=1", "schedule.batch_size=8")
SHARDS = SourceConfig(shard_rows=10)
_DIED, _HANGS_S = 9, 120
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and all that comes of them undisturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_tree(root / "photos", {"cat": 14, "dog": 14})
    for work in VERBS.values():
        work(root, root)
    return root


@pytest.fixture(scope="module")
def changed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of photos of which one is new since, one another, and those of a part gone."""
    root = tmp_path_factory.mktemp("changed")
    photos = write_tree(root / "photos", {"cat": 14, "dog": 14})
    shutil.copytree(made / "run", root / "run")
    for kind in UPDATES:
        VERBS[kind](root, root)
    files = sorted(photos.rglob("*.png"))
    files[0].rename(files[0].with_name("new.png"))
    files[1].write_bytes(encode_image(1_000))
    for file in files[20:]:
        file.unlink()
    return root


def prepared(root: Path, out: Path, update: bool = False) -> None:
    source = open_source(str(root / "photos"), SHARDS)
    config = PrepareConfig(source=SHARDS, validation_share=0.3)
    prepare_store(source, config, out / "store", update=update)


def trained(root: Path, out: Path) -> None:
    train_locally(train_config("digits", None, SETTINGS), root / "store", out / "run")


def encoded(root: Path, out: Path, update: bool = False) -> None:
    source = open_source(str(root / "photos"), SHARDS)
    encode_source(source, root / "run", out / "codes", EncodeConfig(source=SHARDS), update=update)


def indexed(root: Path, out: Path) -> None:
    write_index(root / "codes", out / "index")


def evaluated(root: Path, out: Path) -> None:
    config = EvaluateConfig(controls={"train_rows": 0})
    evaluate_run(root / "run", root / "store", out / "evaluation", config)


def searched(root: Path, out: Path) -> None:
    search_gallery([root / "index"], root / "codes", out / "matches", SearchLimits(k=3))


Work = Callable[[Path, Path], None]
VERBS: dict[str, Work] = {
    "store": prepared,
    "run": trained,
    "codes": encoded,
    "index": indexed,
    "evaluation": evaluated,
    "matches": searched,
}
QUICK = ["index"]  # the others take many times as long
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in VERBS if kind not in QUICK]
UPDATES: dict[str, Work] = {
    "store": partial(prepared, update=True),
    "codes": partial(encoded, update=True),
}


def dies(work: Work, root: Path, out: Path, before: int) -> bool:
    """Run in a process that dies before the nth change below a folder; tell whether it did."""
    child = multiprocessing.get_context("fork").Process(target=_die, args=(work, root, out, before))
    child.start()
    child.join(_HANGS_S)
    child.kill()  # a fork may hang, and be killed there as well as anywhere
    child.join()
    assert child.exitcode in (0, _DIED, -signal.SIGKILL), f"failed before change {before}"
    return child.exitcode != 0


def _die(work: Work, root: Path, out: Path, before: int) -> None:
    changes = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if not _is_change(event, arguments) or str(out) not in str(arguments[0]):
            return
        if changes == before:
            os._exit(_DIED)
        changes += 1

    sys.addaudithook(look)
    work(root, out)


def _is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in _CHANGES


def content(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what was counted and every file's hash; of those that have clock times, the name."""
    manifest = read_manifest(path, kind)
    verify_files(path, manifest)
    if kind in UPDATES:  # parts with a receipt each
        parts, receipts = (
            {Path(name).stem for name in manifest.files if name.startswith(begins)}
            for begins in (("rows-", "part-"), "receipts/")
        )
        assert parts == receipts
    timed = ("metrics.jsonl", "checkpoints/")
    return manifest.counts, {
        name: "" if kind == "run" and name.startswith(timed) else sha256
        for name, sha256 in manifest.files.items()
    }


def go_on(work: Work, root: Path, out: Path) -> None:
    with suppress(AlreadyDone):  # it died between the manifest and the end
        work(root, out)
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_the_same_call_ends_at_the_same_directory(kind: str, made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    work, wanted = VERBS[kind], content(made / kind, kind)
    before = 0
    while dies(work, made, tmp_path, before):
        go_on(work, made, tmp_path)
        assert content(tmp_path / kind, kind) == wanted, f"killed before change {before}"
        shutil.rmtree(tmp_path / kind)
        before += 1
    assert before > 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", UPDATES)
def test_so_does_an_update(kind: str, changed: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    work, outs = UPDATES[kind], (tmp_path / str(before) for before in itertools.count())
    undisturbed = next(outs)
    shutil.copytree(changed / kind, undisturbed / kind)
    work(changed, undisturbed)
    counts, wanted = content(undisturbed / kind, kind)
    assert (counts["new"], counts["changed"], counts["gone"]) == (1, 1, 9)
    for before, out in enumerate(outs):
        shutil.copytree(changed / kind, out / kind)
        died = dies(work, changed, out, before)
        go_on(work, changed, out)
        assert content(out / kind, kind)[1] == wanted, f"killed before change {before}"
        if not died:
            break
    assert before > 3
