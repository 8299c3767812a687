"""Verbs that die just before the nth thing they do to a file, for every n, and are run again.

A process of its own dies each time, without any clean-up; then the same call has to end at the very
directory that nobody disturbed.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import Verb, Work, check_kills
from support.image_files import encode_image, write_tree
from support.users import TINY

from schn_ray.core.artefacts import open_artefact
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.search import SearchLimits
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SETTINGS = (*TINY, "schedule.iterations=2", "schedule.epochs=1", "schedule.batch_size=8")
SHARDS = SourceConfig(shard_rows=10)
SMALL = BackboneConfig(name="small", base_channels=4)


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


def embedded(root: Path, out: Path, update: bool = False) -> None:
    source = open_source(str(root / "photos"), SHARDS)
    config = EmbedConfig(source=SHARDS, backbone=SMALL)
    embed_source(source, out / "features", config, update=update)


def indexed(root: Path, out: Path) -> None:
    write_index(root / "codes", out / "index")


def evaluated(root: Path, out: Path) -> None:
    config = EvaluateConfig(controls={"train_rows": 0})
    evaluate_run(root / "run", root / "store", out / "evaluation", config)


def searched(root: Path, out: Path) -> None:
    search_gallery([root / "index"], root / "codes", out / "matches", SearchLimits(k=3))


VERBS: dict[str, Work] = {
    "store": prepared,
    "run": trained,
    "codes": encoded,
    "features": embedded,
    "index": indexed,
    "evaluation": evaluated,
    "matches": searched,
}
QUICK = ["index"]  # the others take many times as long
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in VERBS if kind not in QUICK]
UPDATES: dict[str, Work] = {
    "store": partial(prepared, update=True),
    "codes": partial(encoded, update=True),
    "features": partial(embedded, update=True),
}


def content(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what was counted and every file's hash; of those that have clock times, the name."""
    artefact = open_artefact(path, kind)
    artefact.check()
    manifest = artefact.manifest
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


def verb(kind: str, work: Work, changes: tuple[str, ...] = ()) -> Verb:
    """Return a verb whose output is compared but for its clock times and what a kill counts."""

    def compared(out: Path) -> object:
        counts, files = content(out / kind, kind)
        assert not list(out.rglob("*.partial"))
        return files if changes else (counts, files)

    return Verb(work, changes=changes, content=compared)


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
def test_the_same_call_ends_at_the_same_directory(kind: str, made: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    assert check_kills(verb(kind, VERBS[kind]), made, tmp_path) > 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", UPDATES)
def test_so_does_an_update(kind: str, changed: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    update = verb(kind, UPDATES[kind], changes=(kind,))
    update.undisturbed(changed, tmp_path / "whole")
    counts, _ = content(tmp_path / "whole" / kind, kind)
    assert (counts["new"], counts["changed"], counts["gone"]) == (1, 1, 9)
    assert check_kills(update, changed, tmp_path) > 3
