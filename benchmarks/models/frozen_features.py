"""CIFAR-10 (cifar10-54k, 32 bits): heads on the features of EfficientNet-Lite0 as it is.

    python -m benchmarks.models.frozen_features cifar10.parquet --out DIR [--gallery 12000]

Embeds the images once at 128 pixels, with the ImageNet weights of ``support.efficientnet_lite0``;
trains a head by each method on the stored features, with the preset ``frozen``; evaluates codes of
the network, exact under ties, and, as controls, the unquantised cosine. ``--gallery`` draws so many
images of the 54,000, for a machine that cannot embed all of them. May be killed and run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import schn_ray
from benchmarks.support.efficientnet_lite0 import write_weights
from schn_ray.evaluation.results import read_figures

TRAIN_AND_QUERIES = 6_000
BACKBONE = "timm:tf_efficientnet_lite0"
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "lsh": ("lsh", {}),
    "itq": ("itq", {}),
    "csq": ("csq", {}),
    "dpsh": ("dpsh", {}),
    "schn-plus": ("schn-plus", {}),
    "csq-mlp": ("csq", {"head.kind": "mlp"}),
    "schn-plus-mlp": ("schn-plus", {"head.kind": "mlp"}),
}


def embedded(parquet: Path, out: Path, gallery: int | None, workers: int | None) -> Path:
    """Prepare a store and embed it; return its location. ``features`` is beside it."""
    if gallery is not None:
        parquet = drawn(parquet, out / "images.parquet", TRAIN_AND_QUERIES + gallery)
    settings = {"protocol": "cifar10-54k", "validation_share": 0}
    store = out / "store"
    schn_ray.prepare(parquet, store, settings=settings)
    weights = write_weights(out / "weights.safetensors")
    started = time.monotonic()
    features = schn_ray.embed(
        store,
        out / "features",
        backbone=BACKBONE,
        weights=str(weights),
        settings={"backbone.image_size": 128},
        workers=workers,
    )
    if not features.note:  # else they were there before
        minutes = (time.monotonic() - started) / 60
        print(json.dumps({"embed": features.counts, "minutes": round(minutes, 1)}), flush=True)
    return store


def drawn(parquet: Path, out: Path, rows: int) -> Path:
    """Write a random part of the images."""
    if not out.is_file():
        table = pq.read_table(parquet)
        chosen = np.random.default_rng(0).choice(len(table), rows, replace=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(np.sort(chosen))), out, row_group_size=1000)
    return out


def measure(name: str, store: Path, out: Path, seed: int) -> dict[str, Any]:
    """Train a head and evaluate it, unless both are there."""
    method, settings = CASES[name]
    features, run = out / "features", out / f"run-{name}-{seed}"
    started = time.process_time()
    schn_ray.train(
        store,
        run,
        method=method,
        preset="frozen",
        features=features,
        settings=settings | {"bits": 32, "seed": seed},
    )
    trained_s = time.process_time() - started
    controls = {"controls.gallery_rows": 60_000, "controls.queries": 200}
    schn_ray.evaluate(run, store, features=features, settings=controls)
    figures = read_figures(f"{run}-evaluation")
    result: dict[str, Any] = {"head": name, "seed": seed, "map": figures.map}
    result |= {"gallery": figures.gallery, "seconds_of_training": round(trained_s, 1)}
    if figures.controls is not None:
        for control in ("cosine", "itq", "classifier"):
            score = figures.controls.scores[control]
            result[control] = None if score is None else round(score.mean, 4)
    return result


def main() -> None:
    """Embed once, then train and evaluate every head."""
    parser = argparse.ArgumentParser(description="Heads on the features of a fixed network.")
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gallery", type=int)
    parser.add_argument("--workers", type=int, help="on Ray, to embed; default: this process")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = embedded(asked.parquet, asked.out, asked.gallery, asked.workers)
    for seed in asked.seeds:
        for name in asked.only:
            print(json.dumps(measure(name, store, asked.out, seed)), flush=True)


if __name__ == "__main__":
    main()
