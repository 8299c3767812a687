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
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

import schn_ray
from benchmarks.support.efficientnet_lite0 import write_weights
from schn_ray.data.shards.vectors import arrow_vectors
from schn_ray.data.store.describe import SPLIT
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation.results import read_figures
from schn_ray.models.stored_features import StoredFeatures

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


def prepared(parquet: Path, out: Path, gallery: int | None) -> Path:
    """Prepare the store; with ``gallery``, from a random part of the gallery's images."""
    settings: dict[str, object] = {"protocol": "cifar10-54k", "validation_share": 0}
    if gallery is None:
        return Path(schn_ray.prepare(parquet, out / "store", settings=settings))
    images, split = out / "images.parquet", out / "split.parquet"
    if not images.is_file():
        whole = schn_ray.prepare(parquet, out / "whole", settings=settings)
        roles = pq.read_table(Path(whole) / SPLIT, columns=["role", "id"])
        in_gallery = pc.equal(roles["role"].cast(pa.string()), "gallery")
        others, of_gallery = roles.filter(pc.invert(in_gallery)), roles.filter(in_gallery)
        chosen = np.random.default_rng(0).choice(len(of_gallery), gallery, replace=False)
        roles = pa.concat_tables([others, of_gallery.take(pa.array(np.sort(chosen)))])
        pq.write_table(roles, split)
        table = pq.read_table(parquet)
        table = table.filter(pc.is_in(table["id"], roles["id"].combine_chunks()))
        pq.write_table(table, images, row_group_size=1000)
    given: dict[str, object] = {"split_from": str(split)}
    return Path(schn_ray.prepare(images, out / "store", settings=given))


def embedded(store: Path, out: Path, workers: int | None) -> None:
    """Embed the store's images."""
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


def standardised(store: Path, out: Path) -> Path:
    """Write the features, each less its mean over its deviation in training, as a store of them."""
    opened, file = open_store(store), out / "standardised.parquet"
    rows = np.arange(len(opened))
    if not file.is_file():
        X = StoredFeatures(out / "features").of_store(opened, rows).vectors(rows)
        trained = X[opened.rows("train")]
        X = (X - trained.mean(axis=0)) / np.maximum(trained.std(axis=0), 1e-6)
        labels = opened.labels.indices
        columns = {"id": opened.ids, "vector": arrow_vectors(X), "label": pa.array(labels)}
        pq.write_table(pa.table(columns), file)
    given: dict[str, object] = {"split_from": str(store / SPLIT)}
    return Path(schn_ray.prepare(file, out / "standardised", settings=given))


def measure(name: str, store: Path, out: Path, seed: int, features: Path | None) -> dict[str, Any]:
    """Train a head and evaluate it, unless both are there."""
    method, settings = CASES[name]
    run = out / f"run-{name}-{seed}{'' if features else '-standardised'}"
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
    # controls are the same for every head
    controls = {"controls.train_rows": 5_000 if name == "itq" else 0}
    controls |= {"controls.gallery_rows": 60_000, "controls.queries": 1_000}
    schn_ray.evaluate(run, store, features=features, settings=controls)
    figures = read_figures(f"{run}-evaluation")
    result: dict[str, Any] = {"head": run.name.removeprefix("run-"), "map": figures.map}
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
    parser.add_argument(
        "--standardised", action="store_true", help="features less their mean, over deviation"
    )
    parser.add_argument("--embed-only", action="store_true")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    store = prepared(asked.parquet, asked.out, asked.gallery)
    embedded(store, asked.out, asked.workers)
    if asked.embed_only:
        return
    features = None if asked.standardised else asked.out / "features"
    if asked.standardised:
        store = standardised(store, asked.out)
    for seed in asked.seeds:
        for name in asked.only:
            print(json.dumps(measure(name, store, asked.out, seed, features)), flush=True)


if __name__ == "__main__":
    main()
