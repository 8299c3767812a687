"""Codes of a trained model, as many as a benchmark needs: a head of CSQ on digits drawn anew.

The 1,797 digits of scikit-learn are drawn again and again, each time shifted by up to a pixel,
brighter or darker, and with noise. The head, of one hidden layer, learns 10 classes from 6,000 of
them in seconds and then encodes as many others as are asked for. So codes lie as those of a
supervised model do: near the ten codewords of their classes, many equal, some in between.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

import schn_ray
from schn_ray.models.hasher import Hasher

_TRAINING_ROWS = 6_000
_AT_ONCE = 1 << 16


def drawn_digits(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits: float32 [n, 64] of about -1 to 1, and their classes [n]."""
    images, classes = load_digits(return_X_y=True)
    rows = rng.integers(0, len(images), n)
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))[rows]
    down, across = (rng.integers(0, 3, (n, 1, 1)) + np.arange(8).reshape(s) for s in ((8, 1), (8,)))
    shifted = padded[np.arange(n)[:, None, None], down, across].reshape(n, 64)
    brightness = rng.uniform(0.7, 1.3, (n, 1))
    noisy = shifted * brightness / 8 - 1 + rng.normal(0, 0.15, (n, 64))
    return noisy.astype(np.float32), classes[rows]


def train_on_digits(folder: Path, bits: int) -> Hasher:
    vectors, classes = drawn_digits(_TRAINING_ROWS, np.random.default_rng(0))
    table = {
        "id": [f"{i:05}" for i in range(len(vectors))],
        "label": [str(c) for c in classes],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 64),
    }
    pq.write_table(pa.table(table), folder / "digits.parquet")
    store = schn_ray.prepare(folder / "digits.parquet", folder / "store")
    settings = {"bits": bits, "head.kind": "mlp", "schedule.early_stopping": None}
    run = schn_ray.train(
        store, folder / "run", method="csq", preset="frozen", settings=settings | {"seed": 0}
    )
    return schn_ray.load(run)


def trained_codes(sizes: list[int], bits: int) -> list[np.ndarray]:
    """Train a model and return codes of so many digits each, packed; all are other digits."""
    with tempfile.TemporaryDirectory() as name:
        hasher = train_on_digits(Path(name), bits)
    rng, codes = np.random.default_rng(1), []
    for size in sizes:
        parts = [
            hasher.encode_views([drawn_digits(min(_AT_ONCE, size - start), rng)[0]])
            for start in range(0, size, _AT_ONCE)
        ]
        codes.append(np.concatenate(parts))
    return codes
