"""Small problems for shallow methods, and workers that are threads of this process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.workers import Workers
from schn_ray.data.labels import LabelSets, label_sets
from schn_ray.methods.shallow.feature_rows import FeatureRows

Array = np.ndarray[Any, Any]


def clustered(
    n: int = 60, d: int = 8, classes: int = 4, seed: int = 0
) -> tuple[Array, Array, LabelSets]:
    """Features around class centres, and one label a row: X [n, d], Y [n, C], label sets."""
    rng = np.random.default_rng(seed)
    Y = np.eye(classes)[rng.integers(0, classes, n)]
    X = Y @ rng.standard_normal((classes, d)) * 2 + rng.standard_normal((n, d))
    return X.astype(np.float32), Y, sets_of(Y)


def multi_label(
    n: int = 60, d: int = 8, classes: int = 5, seed: int = 0
) -> tuple[Array, Array, LabelSets]:
    """As ``clustered``, with several labels a row, or none."""
    rng = np.random.default_rng(seed)
    Y = (rng.random((n, classes)) < 0.3).astype(float)
    X = Y @ rng.standard_normal((classes, d)) * 2 + rng.standard_normal((n, d))
    return X.astype(np.float32), Y, sets_of(Y)


def sets_of(Y: Array) -> LabelSets:
    return label_sets(csr_array(Y.astype(np.uint8)))


@dataclass
class Meeting:
    size: int
    barrier: threading.Barrier = field(init=False)
    parts: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)


@dataclass(frozen=True)
class ThreadWorkers(Workers):
    """Workers that meet in memory."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather_any(self, own: Tensor) -> Tensor:
        self.meeting.parts[self.rank] = own.clone()
        self.meeting.barrier.wait()
        parts = [self.meeting.parts[rank] for rank in range(self.size)]
        self.meeting.barrier.wait()
        return torch.cat(parts)


def on_threads(size: int, X: Array, shard_rows: int, f: Callable[[FeatureRows], Any]) -> list[Any]:
    """Call f in each of ``size`` workers with its part of the rows; return what each returned."""
    meeting = Meeting(size)

    def work(rank: int) -> Any:
        workers = ThreadWorkers(rank, size, meeting)
        return f(
            FeatureRows(
                lambda at: X[at], len(X), X.shape[1], workers=workers, shard_rows=shard_rows
            )
        )

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))
