"""Quality of the shallow methods: mAP of encoded codes on digits and on CIFAR-10's features.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.quality cifar10.parquet --cache features.npz

``digits``: 300 queries, 1,497 gallery rows, of which the first 1,000 train. ``cifar``: 1,000
queries, 5,000 training rows, 54,000 other gallery rows; 488 features that need no network. mAP over
the whole gallery, exact under ties; the mean of some seeds. Settings are the defaults.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from sklearn.datasets import load_digits

from benchmarks.support.cifar_features import cifar_features, cifar_split
from schn_ray.core.bits import pack
from schn_ray.data.labels import label_matrix, label_sets
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.methods.shallow.feature_rows import Array, array_rows
from schn_ray.methods.shallow.fit import fit_all
from schn_ray.methods.shallow.method import FittedMethod

FITTED = [name for name in METHODS if issubclass(find_method(name), FittedMethod)]


class Data(NamedTuple):
    """Features X [n, d], classes [n], and the rows of each role."""

    X: Array
    classes: Array
    queries: Array
    train: Array
    gallery: Array


def digits() -> Data:
    """Return the digits, in an order drawn once."""
    data, order = load_digits(), np.random.default_rng(0).permutation(1797)
    X = (data.data[order] / 16).astype(np.float32)
    return Data(
        X, data.target[order], *(np.arange(*at) for at in ((0, 300), (300, 1300), (300, 1797)))
    )


def cifar(parquet: Path, cache: Path | None) -> Data:
    """Return CIFAR-10; training rows are not in the gallery."""
    X, classes = cifar_features(parquet, cache)
    return Data(X, classes, *cifar_split(classes))


def quality(name: str, data: Data, bits: int, seed: int, settings: dict[str, Any]) -> float:
    """Fit a method, and return the mAP of its codes."""
    method = find_method(name)
    assert issubclass(method, FittedMethod)
    config = method.Fit.Config(**settings)
    Y = np.eye(10, dtype=np.uint8)[data.classes[data.train]]
    labels = None if method.labels == "none" else label_sets(csr_array(Y))
    head = fit_all(method.Fit(config, bits, seed), array_rows(data.X[data.train]), labels)
    codes = np.concatenate(
        [pack(head.codes(data.X[at : at + 4096])) for at in range(0, len(data.X), 4096)]
    )
    Y_all = label_matrix([[c] for c in data.classes.tolist()], 10)
    histograms = distance_histograms(
        codes[data.queries], Y_all[data.queries], codes[data.gallery], Y_all[data.gallery], bits
    )
    return mean(average_precision(histograms))


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description="mAP of shallow methods.")
    parser.add_argument("parquet", type=Path, nargs="?", help="CIFAR-10; without it, digits")
    parser.add_argument("--cache", type=Path, help="features as .npz, written or read")
    parser.add_argument("--only", nargs="+", default=FITTED, choices=FITTED)
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="settings, such as ridge=0.1")
    asked = parser.parse_args()
    data = cifar(asked.parquet, asked.cache) if asked.parquet else digits()
    settings = dict(line.split("=") for line in asked.set)
    for name in asked.only:
        figures, started = [], time.process_time()
        for bits in asked.bits:
            scores = [quality(name, data, bits, seed, settings) for seed in range(asked.seeds)]
            spread = f" ±{np.std(scores, ddof=1):.4f}" if asked.seeds > 1 else ""
            figures.append(f"{bits} bits {np.mean(scores):.4f}{spread}")
        seconds = (time.process_time() - started) / asked.seeds / len(asked.bits)
        print(f"{name:12}: {', '.join(figures)}; {seconds:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
