"""CIFAR-10 (cifar10-54k, 32 bits) on one CPU core, from scratch: the default, and what it changes.

    python -m benchmarks.training.cifar10 cifar10.parquet --out DIR [--only NAME ...] [--choose]

Trains the compact network from scratch on 5,000 images, 30 epochs in all, and prints mAP with
codes encoded by the network, exact under ties. ``schn-plus`` is the preset ``cifar10``; others
leave out one part of it, or are SCHN as published and its corrections. With ``--choose`` a tenth of
the training rows is held out and only its mAP is printed: what is chosen must not be chosen on test
queries.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.settings import load_settings
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import read_figures
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally

AS_PUBLISHED = (
    "backbone.name=small",
    "backbone.weights=null",
    "augment.pad=4",
    "schedule.iterations=10",
    "optimiser.learning_rate=1e-3",
    "schedule.decay_after=[5,8]",
)
PAIRS = (
    "method.pair=100",
    "method.pair_scale=5",
    "method.hash_semantic=0",
    "method.hash_latent=0",
    "method.cycle_image=0",
    "method.cycle_semantic=0",
    "method.adversarial=0",
)
WITHOUT = {
    "no-classifier": ("method.classifier=0",),
    "no-pairs": ("method.pair=0",),
    "no-hash-loss": ("method.hash_image=0",),
    "no-update": ("method.update_codes=false",),
    "no-warm-up": ("schedule.warm_up=0",),
    "zeros": ("method.initial_codes=zeros",),
    "hadamard": ("method.initial_codes=hadamard",),
}
CORRECTED = {
    "schn": (),
    "random": ("method.initial_codes=random",),
    "mean": ("method.initial_codes=random", "method.label_graph=mean"),
    "tanh": ("method.initial_codes=random", "method.latent_activation=tanh"),
    "soft": ("method.initial_codes=random", "method.negative_target=soft"),
    "pairs": ("method.initial_codes=random", *PAIRS),
}
METHODS = ("schn-plus", "dlbhc", "dpsh", "csq", "hashnet")


def settings_of(variant: str, seed: int) -> TrainConfig:
    """Return the settings of a variant: of a method, of schn-plus less a part, or of SCHN."""
    if variant in METHODS:
        return train_config("cifar10", None, (f"seed={seed}",), variant)
    if variant in WITHOUT:
        return train_config("cifar10", None, (*WITHOUT[variant], f"seed={seed}"), "schn-plus")
    return train_config(None, None, (*AS_PUBLISHED, *CORRECTED[variant], f"seed={seed}"), "schn")


def measure(name: str, parquet: Path, out: Path, choose: bool, seed: int) -> dict[str, object]:
    store = out / ("store-choose" if choose else "store")
    run = out / f"run-{'choose-' if choose else ''}{name}-{seed}"
    share = 0.1 if choose else 0.0
    settings = ("protocol=cifar10-54k", f"validation_share={share}")
    prepared = load_settings(PrepareConfig, None, settings)
    _once(lambda: prepare_store(open_source(str(parquet), prepared.source), prepared, store))
    config = settings_of(name, seed)
    started = time.process_time()
    _once(lambda: train_locally(config, store, run))
    minutes = round((time.process_time() - started) / 60, 1)
    result = {"variant": name, "seed": seed, "minutes of CPU": minutes}
    if choose:
        return result | {"validation_map": read_metrics(run)[-1]["validation_map"]}
    evaluation = out / f"evaluation-{name}-{seed}"
    _once(lambda: evaluate_run(run, store, evaluation, EvaluateConfig()))
    measured = read_figures(evaluation)
    return result | {"map": measured.map, "gallery_codes": measured.gallery_codes}


def _once(work: Callable[[], object]) -> None:
    try:
        work()
    except AlreadyDone:
        return


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    variants = (*METHODS, *WITHOUT, *CORRECTED)
    parser.add_argument("--only", nargs="+", choices=variants, default=["schn-plus", "schn"])
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for variant in asked.only:
        found = measure(variant, asked.parquet, asked.out, asked.choose, asked.seed)
        print(json.dumps(found), flush=True)
