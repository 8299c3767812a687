"""Dropout on 1, 2 and 3 workers: they compute the same, as closely as without dropout."""

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from support.gloo import run_on_workers
from support.trained import photo_store
from support.trials import takes_minutes
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from schn_ray.core.workers import Workers
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.methods.base import Batch, DeepMethod, Step
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.methods.trainer import Trainer
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.config import BackboneConfig
from schn_ray.training import run as training
from schn_ray.training.batches import dropout_seed
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.run import build_run

CPU = torch.device("cpu")
STEPS, ROWS, WIDTH = 4, 23, 64
FEW = (f"schedule.batch_size={ROWS}", f"schedule.samples={ROWS * STEPS}", "schedule.epochs=1")
SMALL = ("backbone.base_channels=4", "backbone.image_size=16")
DEEP = [name for name in METHODS if issubclass(find_method(name), DeepMethod)]
OFF = "without dropout"


class Case(NamedTuple):
    """A training of a few steps."""

    name: str
    preset: str | None = None
    method: str = "schn"
    settings: tuple[str, ...] = ()
    store: str = "photos"

    def config(self) -> TrainConfig:
        return train_config(self.preset, None, (*FEW, *self.settings), self.method)


PRESETS = [
    Case("digits", "digits", settings=SMALL),
    Case("cifar10", "cifar10", settings=SMALL),
    Case(
        "frozen",
        "frozen",
        settings=(f"backbone.name=features:{WIDTH}", "backbone.weights=none"),
        store="vectors",
    ),
]
LARGE = [
    Case(name, "digits", "csq", (f"backbone.name={name}", "backbone.image_size=64"))
    for name in ("alexnet", "vgg11", "efficientnet_b0", "swin_t")
]
METHODS_WITH_DROPOUT = [Case(name, "digits", name, SMALL) for name in DEEP]
ALL = {case.name: case for case in (*PRESETS, *LARGE, *METHODS_WITH_DROPOUT)}


class Dropping(nn.Module):
    """A backbone with dropout of both kinds behind its last layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.dropped = network, nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Images -> features."""
        features: Tensor = self.dropped(self.network(x))
        return features


def build_dropping(config: BackboneConfig) -> Backbone:
    built = BUILD(config)
    return replace(built, module=Dropping(built.module)) if config.name == "small" else built


BUILD = training.build_backbone


def few_steps(case: Case, workers: Workers, dropout: bool) -> dict[str, Tensor]:
    """Train some steps; return the terms of each, and relaxed codes of all rows."""
    store = open_store(Path(case.store))
    run = build_run(case.config(), store, workers, CPU)
    if not dropout:
        for module in run.method.modules():
            if isinstance(module, (nn.Dropout, StochasticDepth)):
                module.p = 0.0
    terms = []
    trainer: Trainer = run.learner.trainer  # type: ignore[attr-defined]
    step = trainer.step

    def watched(batch: Batch) -> Step:
        result = step(batch)
        terms.append(torch.stack([t * batch.share for t in result.terms.values()]))
        return result

    trainer.step = watched  # type: ignore[method-assign]
    run.iteration = 1
    torch.manual_seed(dropout_seed(run.seed, 1))
    run.learner.iterate(run)
    views = run.validation.own_views
    U = workers.gather_any(run.hasher().relaxed(views))
    codes = run.table.read(np.arange(len(run.data)))
    return {"terms": workers.sum(torch.stack(terms)) / workers.size, "U": U, "codes": codes}


def all_cases(workers: Workers) -> dict[str, dict[str, Tensor]]:
    torch.set_num_threads(1)
    training.build_backbone = build_dropping  # type: ignore[attr-defined]
    results = {}
    for name in json.loads(Path("cases.json").read_text()):
        for dropout in (True, False):
            key = name if dropout else f"{name} {OFF}"
            results[key] = few_steps(ALL[name], workers, dropout)
            gc.collect()  # the trainer is in a cycle, and holds the process group
    return results


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of four classes, and digits as vectors."""
    folder = tmp_path_factory.mktemp("dropout")
    config = PrepareConfig(train_share=0.7, validation_share=0.3)
    photos = photo_store(folder, dict.fromkeys(("cat", "dog", "owl", "fox"), 36), config)
    photos.rename(folder / "photos-store")
    (folder / "vectors").mkdir()
    np.save(folder / "vectors" / "rows.npy", load_digits().data[:144].astype(np.float32))
    labels = "".join(f"{label}\n" for label in load_digits().target[:144])
    (folder / "vectors" / "rows.labels.txt").write_text(labels)
    source = open_source(str(folder / "vectors" / "rows.npy"), config.source)
    prepare_store(source, config, folder / "vectors-store")
    return folder


class Difference(NamedTuple):
    """Of several workers from one.

    Attributes:
        terms: the largest of any loss term, relative, divided by the number of steps so far.
        bits: share of the bits of learned and encoded codes.
    """

    terms: float
    bits: float


def difference(worker: dict[str, Tensor], alone: dict[str, Tensor]) -> Difference:
    steps = torch.arange(1, len(alone["terms"]) + 1)[:, None]
    terms = (worker["terms"] - alone["terms"]).abs() / alone["terms"].abs().clamp(min=1) / steps
    bits = torch.cat([((worker[k] >= 0) != (alone[k] >= 0)).flatten() for k in ("U", "codes")])
    return Difference(float(terms.max()), float(bits.double().mean()))


@takes_minutes
@pytest.mark.parametrize("group", [PRESETS, LARGE, METHODS_WITH_DROPOUT], ids=len)
def test_it_is_as_equal_as_without(
    group: list[Case], stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("photos", "vectors"):
        Path(kind).symlink_to(stores / f"{kind}-store")
    Path("cases.json").write_text(json.dumps([case.name for case in group]))
    alone = all_cases(Workers())
    for case in group:  # a control: dropout changes what is learned
        on, off = alone[case.name]["terms"], alone[f"{case.name} {OFF}"]["terms"]
        assert not torch.allclose(on, off, rtol=1e-3), case.name
    together = {size: run_on_workers(all_cases, tmp_path / str(size), size)[0] for size in (2, 3)}
    far = []
    for case in group:
        name = f"{case.name} {OFF}"
        without = [difference(workers[name], alone[name]) for workers in together.values()]
        # rounding of batch normalisation, which the number of workers decides, is the same
        terms = max(1e-6, *(2 * off.terms for off in without))
        bits = max(1e-4, *(off.bits for off in without))
        for (size, workers), off in zip(together.items(), without, strict=True):
            on = difference(workers[case.name], alone[case.name])
            print(f"{size} workers, {case.name}: {on}; without {off}")
            if on.terms > terms or on.bits > bits:
                far.append((size, case.name, on, off))
    assert not far
