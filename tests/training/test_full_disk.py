"""Training on a disk that is full says which file could not be written, and then goes on."""

import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.faults import Fault, Verb, check_full_disk, ends
from support.trials import takes_minutes

from schn_ray.core.artefacts import open_artefact
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.models.backbones import saved
from schn_ray.training import recorder
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SETTINGS = ("bits=8", "schedule.iterations=2", "schedule.epochs=1", "schedule.batch_size=16")
WIDTH = 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of vectors of two classes: what is trained on it are a few hundred weights."""
    folder = tmp_path_factory.mktemp("full")
    rows = np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    (folder / "rows.labels.txt").write_text("a\nb\n" * 30)
    config = PrepareConfig(validation_share=0.2)
    prepare_store(open_source(str(folder / "rows.npy"), config.source), config, folder / "store")
    return folder


def trained(root: Path, out: Path) -> None:
    base = {"backbone": {"name": f"features:{WIDTH}", "weights": None}}
    train_locally(train_config(None, None, SETTINGS, "csq", base), root / "store", out / "run")


def content(out: Path) -> dict[str, Any]:
    """Return the hashes of all files; of those that have clock times, the names."""
    artefact = open_artefact(out / "run", "run")
    artefact.check()
    timed = ("metrics.jsonl", "checkpoints/")
    return {
        name: "" if name.startswith(timed) else sha256
        for name, sha256 in artefact.manifest.files.items()
    }


def full_at(module: Any, function: str, call: int = 1) -> Fault:
    """Let no file grow any more from a call of a function on, as if the disk were full then."""

    def fault(_: Path) -> None:
        original, calls = getattr(module, function), iter(range(call - 1))

        def called(*arguments: Any, **options: Any) -> Any:
            if next(calls, None) is None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
            return original(*arguments, **options)

        setattr(module, function, called)

    return fault


FULL = {
    "metrics.jsonl": full_at(recorder, "asdict", 2),
    "model/weights.safetensors": full_at(saved, "save_file"),
    "checkpoints/last.pt": full_at(torch, "save", 2),
    "learned.parquet": full_at(pq, "write_table"),
    "trained.parquet": full_at(pq, "write_table", 2),
}


QUICK = ("checkpoints/last.pt", "learned.parquet")


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL if name not in QUICK)],
)
def test_the_file_is_named_and_the_same_call_goes_on(name: str, root: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    verb, out = Verb(trained, content=content), tmp_path / "out"
    out.mkdir()
    end = ends(verb.work, root, out, FULL[name])
    assert end.code == 2, end
    assert re.search(f"cannot write {out}/run/{name}: .*file too large", end.text.lower()), end
    assert "Traceback" not in end.text, end
    verb.again(root, out)
    assert verb.content(out) == verb.undisturbed(root, tmp_path / "undisturbed")


@takes_minutes
def test_every_file_is_named_and_the_same_call_ends_it(root: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    assert check_full_disk(Verb(trained, content=content), root, tmp_path) > 20
