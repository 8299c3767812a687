"""Photos without labels: recall of the exact nearest ten, of LSH, PCA-rotation and ITQ.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.unlabelled_photos cifar10.parquet --out DIR

Draws images of a Parquet file, writes them as PNG files in one folder, without their labels, and
prepares, embeds with EfficientNet-Lite0 (ImageNet, ``timm:tf_efficientnet_lite0``) at 128 pixels,
trains and evaluates as a user would. Neighbours are by the exact cosine of the features. May be
killed and run again.
"""

from __future__ import annotations

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import schn_ray
from benchmarks.support.efficientnet_lite0 import write_weights
from schn_ray.evaluation.figures import NeighbourRecall
from schn_ray.evaluation.results import read_figures

BACKBONE, PIXELS = "timm:tf_efficientnet_lite0", 128
METHODS, BITS = ("lsh", "pca-rotation", "itq"), (32, 64, 128)


def main() -> None:
    """Print a table: a line a method, a column a number of bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=5_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out
    photos = write_photos(arguments.parquet, out / "photos", arguments.photos)
    store = schn_ray.prepare(photos, out / "store")
    features = schn_ray.embed(
        store,
        out / "features",
        backbone=BACKBONE,
        weights=str(write_weights(out / "weights.safetensors")),
        settings={"backbone.image_size": PIXELS, "source.shard_rows": 256},
    )
    recalls = {
        (method, bits): recall(store, features, out / f"{method}-{bits}", method, bits)
        for method, bits in itertools.product(METHODS, BITS)
    }
    print(f"| recall 10@10 | {' | '.join(f'{bits} bits' for bits in BITS)} |")
    for method in METHODS:
        cells = (recalls[method, bits].model for bits in BITS)
        line = (f"{cell.mean:.3f} ({cell.low:.3f} to {cell.high:.3f})" for cell in cells)
        print(f"| `{method}` | {' | '.join(line)} |")


def write_photos(parquet: Path, folder: Path, count: int) -> Path:
    """Write images drawn at random as PNG files."""
    if folder.is_dir():
        return folder
    images = pq.read_table(parquet, columns=["image"])["image"]
    drawn = np.random.default_rng(0).choice(len(images), count, replace=False)
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images.take(drawn).to_pylist()):
        Image.open(io.BytesIO(image)).save(partial / f"{number:05}.png")
    return partial.rename(folder)


def recall(store: str, features: str, run: Path, method: str, bits: int) -> NeighbourRecall:
    """Train and evaluate, unless both are there."""
    schn_ray.train(store, run, method=method, features=features, settings={"bits": bits})
    settings = {"recall_at": [10]}
    schn_ray.evaluate(run, store, features=features, settings=settings)
    result = read_figures(f"{run}-evaluation").main_recall
    assert result is not None
    return result


if __name__ == "__main__":
    main()
