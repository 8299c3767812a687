"""ITQ and PCA against FAISS's transforms on the same rows: time of the fit, and quality.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.against_faiss cifar10.parquet

One core, CPU seconds, in turns; the ratio is the median of the ratios of neighbours. ITQ against
``ITQTransform``: centred unit rows, principal axes, 50 rounds. PCA against ``PCAMatrix``: centred
rows, principal axes; ours then has a random rotation, which costs nothing, and codes are measured
with that rotation on both. Both fit on all rows given (``max_train_per_dim`` of FAISS is raised).
Quality, mean of three seeds: mAP by class of 1,000 CIFAR-10 queries, and how many of the 10 rows of
the largest cosine are among the 100 nearest codes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.support.cifar_features import Features, Numbers, cifar_features, cifar_split
from schn_ray.core.bits import pack
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.methods.shallow.feature_rows import array_rows
from schn_ray.methods.shallow.fit import fit_all
from schn_ray.methods.shallow.itq import Itq, ItqConfig
from schn_ray.methods.shallow.pca_rotation import PcaRotation, PcaRotationConfig
from schn_ray.methods.shallow.rotations import random_rotation

Code = Callable[[Features], NDArray[Any]]
_ALL = 10**9  # rows of a dimension that FAISS trains on, at most


def our_itq(X: Features, bits: int, seed: int) -> Code:
    """Fit ours."""
    return fit_all(Itq(ItqConfig(), bits, seed), array_rows(X)).codes


def their_itq(X: Features, bits: int, seed: int) -> Code:
    """Fit FAISS's."""
    transform = faiss.ITQTransform(X.shape[1], bits, True)
    transform.max_train_per_dim = _ALL
    transform.itq.seed = seed
    transform.train(X)
    return transform.apply


def our_pca(X: Features, bits: int, seed: int) -> Code:
    """Fit ours."""
    return fit_all(PcaRotation(PcaRotationConfig(unit=False), bits, seed), array_rows(X)).codes


def their_pca(X: Features, bits: int, seed: int) -> Code:
    """Fit FAISS's, with the signs of our axes, and turn it as ours is turned."""
    transform = faiss.PCAMatrix(X.shape[1], bits)
    transform.max_points_per_d = _ALL
    transform.train(X)
    P = faiss.vector_to_array(transform.A).reshape(-1, X.shape[1])[:bits]
    flips = np.sign(P[np.arange(bits), np.abs(P).argmax(axis=1)])
    R = (flips[:, None] * random_rotation(bits, bits, seed)).astype(np.float32)
    return lambda rows: transform.apply(rows) @ R


PAIRS = {"ITQ": (our_itq, their_itq), "PCA": (our_pca, their_pca)}


def timed(fit: Callable[[], Code]) -> tuple[Code, float]:
    """Return what a fit returns, and its CPU seconds."""
    started = time.process_time()
    return fit(), time.process_time() - started


class Problem:
    """What codes of the features are measured on.

    Attributes:
        nearest: of each query, the 10 gallery rows of the largest cosine [1000, 10].
    """

    def __init__(self, F: Features, classes: Numbers) -> None:
        self.F, split = F, cifar_split(classes)
        self.queries, self.gallery = split.queries, np.concatenate([split.train, split.gallery])
        self.labels = label_matrix([[c] for c in classes.tolist()], 10)
        unit = F - F.mean(axis=0)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        cosines = unit[self.queries] @ unit[self.gallery].T
        self.nearest = np.argpartition(-cosines, 10, axis=1)[:, :10]

    def quality(self, code: Code, bits: int) -> tuple[float, float]:
        """Return mAP by class, and the share of the 10 nearest that are among 100 retrieved."""
        packed = pack(np.where(code(self.F) >= 0, 1.0, -1.0))
        queries, gallery = packed[self.queries], packed[self.gallery]
        labels = self.labels[self.queries], self.labels[self.gallery]
        histograms = distance_histograms(queries, labels[0], gallery, labels[1], bits)
        index = faiss.IndexBinaryFlat(packed.shape[1] * 8)
        index.add(gallery)
        _, retrieved = index.search(queries, 100)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(self.nearest, retrieved, strict=True)]
        return mean(average_precision(histograms)), float(np.mean(hits)) / 10


def main() -> None:
    """Compare both pairs for some numbers of bits."""
    parser = argparse.ArgumentParser(description="ITQ and PCA against FAISS.")
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--cache", type=Path, help="features as .npz, written or read")
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--only", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="whose mean quality is compared")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    F, classes = cifar_features(asked.parquet, asked.cache)
    problem = Problem(F, classes)
    print(f"{len(F):,} rows of {F.shape[1]} float32")
    for name in asked.only:
        ours, theirs = PAIRS[name]
        for bits in asked.bits:
            times, figures = [], []
            for turn in range(max(asked.turns, asked.seeds)):
                code, our_s = timed(lambda: ours(F, bits, turn))  # noqa: B023
                their_code, their_s = timed(lambda: theirs(F, bits, turn))  # noqa: B023
                times.append((our_s, their_s, our_s / their_s))
                if turn < asked.seeds:
                    pair = (code, their_code)
                    figures.append([problem.quality(each, bits) for each in pair])
            ours_s, theirs_s, ratio = np.median(times, axis=0)
            (a_map, a_recall), (b_map, b_recall) = np.mean(figures, axis=0)
            print(
                f"{name} {bits} bits: {ours_s:.2f} s against {theirs_s:.2f} s, {ratio:.2f} times; "
                f"mAP {a_map:.4f} against {b_map:.4f}, "
                f"recall of 10 in 100 {a_recall:.4f} against {b_recall:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
