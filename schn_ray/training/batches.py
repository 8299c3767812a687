"""Rows and views of each global batch, as functions of seed, outer iteration, epoch and row.

This module has no state to save. The sequence of global batches is the same on any number of
workers, and a run that was stopped continues with the batches that it would have seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.workers import Workers
from schn_ray.data.distortion import distorted_view
from schn_ray.data.images import Preprocessing, decode_for, normalise, training_view
from schn_ray.methods.base import View
from schn_ray.training.config import AugmentConfig

Rows = NDArray[np.int64]
_SAMPLE, _ORDER, _VIEW, _TORCH = range(4)  # a random stream for each purpose
_AHEAD = 2  # batches that are decoded in advance
_IMAGES_AT_ONCE = 8  # that a thread decodes in one task
_VECTORS_AT_ONCE = 1024  # copying one costs less than a task


class TrainingRows(Protocol):
    """The training rows 0..n-1: labels, and views that a worker fills a batch with.

    Attributes:
        store_rows: [n] number of each training row in the store.
        labels: [n, C].
        views: V, of each row in a batch, see ``DeepMethod.views``.
        rows_a_task: that a thread fills in at once.
    """

    @property
    def rows_a_task(self) -> int:
        """Rows of one task."""

    @property
    def store_rows(self) -> Rows:
        """Numbers in the store."""

    @property
    def labels(self) -> csr_array:
        """Labels of the rows."""

    @property
    def views(self) -> tuple[View, ...]:
        """Views of each row."""

    def __len__(self) -> int: ...

    def empty(self, rows: int, pinned: bool) -> Tensor:
        """Return an uninitialised batch [V, rows, ...]."""

    def fill(self, out: Tensor, rows: Rows, draws: NDArray[np.float64]) -> None:
        """Write views of rows [b], drawn by draws [V, b, 3], into out [V, b, ...]."""

    def inputs(self, views: Tensor) -> Tensor:
        """Turn views [m, ...] on the network's device into its inputs."""


@dataclass(frozen=True)
class TrainingVectors:
    """Training rows that are feature vectors.

    A plain view is the vector; a distorted one lacks some of its numbers, as after dropout.

    Attributes:
        vectors: store rows [m] -> float32 [m, d].
        store_rows: [n] number of each training row in the store.
        labels: [n, C].
        width: d.
        drop: share of the numbers that a distorted view lacks.
        views: of each row in a batch.
    """

    vectors: Callable[[Rows], NDArray[np.float32]]
    store_rows: Rows
    labels: csr_array
    width: int
    drop: float = 0.0
    views: tuple[View, ...] = ("plain",)
    rows_a_task: ClassVar[int] = _VECTORS_AT_ONCE

    def __len__(self) -> int:
        return len(self.store_rows)

    def empty(self, rows: int, pinned: bool) -> Tensor:
        """Return an uninitialised batch, float32 [V, rows, d]."""
        return torch.empty((len(self.views), rows, self.width), pin_memory=pinned)

    def fill(self, out: Tensor, rows: Rows, draws: NDArray[np.float64]) -> None:
        """Write views of rows [b], drawn by draws [V, b, 3], into out [V, b, d]."""
        out.numpy()[:] = self.vectors(self.store_rows[rows])
        for kind, views, of_view in zip(self.views, out.numpy(), draws, strict=True):
            if kind == "distorted":
                _drop(views, self.drop, of_view)

    def inputs(self, views: Tensor) -> Tensor:
        """Return the vectors as they are."""
        return views


@dataclass(frozen=True)
class TrainingImages:
    """Training rows that are images, with random views.

    Attributes:
        image: store row -> bytes of the image file.
        store_rows: [n] number of each training row in the store.
        labels: [n, C].
        preprocessing: from an image to the network's input.
        augment: random views.
        views: of each row in a batch.
    """

    image: Callable[[int], bytes]
    store_rows: Rows
    labels: csr_array
    preprocessing: Preprocessing
    augment: AugmentConfig
    views: tuple[View, ...] = ("plain",)
    rows_a_task: ClassVar[int] = _IMAGES_AT_ONCE

    def __len__(self) -> int:
        return len(self.store_rows)

    def empty(self, rows: int, pinned: bool) -> Tensor:
        """Return an uninitialised batch, uint8 [V, rows, 3, S, S]."""
        side, views = self.preprocessing.crop, len(self.views)
        return torch.empty((views, rows, 3, side, side), dtype=torch.uint8, pin_memory=pinned)

    def inputs(self, views: Tensor) -> Tensor:
        """Return normalised images, channels last."""
        images = normalise(views, self.preprocessing)
        return images.contiguous(memory_format=torch.channels_last)

    def fill(self, out: Tensor, rows: Rows, draws: NDArray[np.float64]) -> None:
        """Write views of rows [b], drawn by draws [V, b, 3], into uint8 out [V, b, 3, S, S]."""
        p, augment, pixels = self.preprocessing, self.augment, out.numpy()
        for i, row in enumerate(rows):
            image = decode_for(self.image(int(self.store_rows[row])), p)
            for kind, views, of_view in zip(self.views, pixels, draws, strict=True):
                if kind == "plain":
                    views[i] = training_view(image, p, augment.pad, augment.flip, of_view[i])
                else:
                    views[i] = distorted_view(image, p, augment, of_view[i])


def sampled_rows(n: int, samples: int, seed: int, iteration: int) -> Rows:
    """Draw the training rows of an outer iteration.

    Args:
        n: number of training rows.
        samples: number of rows to draw; all rows are taken if there are not more.
        seed: of the run.
        iteration: outer iteration 1, 2, ...

    Returns:
        Distinct row numbers, sorted.

    >>> sampled_rows(3, 5, seed=0, iteration=1)
    array([0, 1, 2])
    """
    if samples >= n:
        return np.arange(n)
    rng = np.random.default_rng([seed, _SAMPLE, iteration])
    return np.sort(rng.choice(n, samples, replace=False))


def global_batches(
    rows: Rows, batch_size: int, seed: int, iteration: int, epoch: int
) -> list[Rows]:
    """Shuffle an epoch's rows and split them into batches of nearly equal size.

    Nearly equal sizes avoid a small last batch, with few rows for attention and pairs.

    Args:
        rows: row numbers of the outer iteration.
        batch_size: most rows of a global batch.
        seed: of the run.
        iteration: outer iteration 1, 2, ...
        epoch: 0, 1, ... within the iteration.

    Returns:
        The row numbers of each batch, in order of the steps.
    """
    order = np.random.default_rng([seed, _ORDER, iteration, epoch]).permutation(rows)
    return np.array_split(order, -(-len(rows) // batch_size))


def view_draws(
    n: int, seed: int, iteration: int, epoch: int, views: int = 1
) -> NDArray[np.float64]:
    """Draw the numbers that decide each view of each row: where it is cropped, say.

    Args:
        n: number of training rows.
        seed: of the run.
        iteration: outer iteration 1, 2, ...
        epoch: 0, 1, ... within the iteration.
        views: V, of each row. The first one does not depend on whether there is a second.

    Returns:
        [V, n, 3] numbers in [0, 1).
    """
    when = [seed, _VIEW, iteration, epoch]
    purposes = [[*when, *((view,) if view else ())] for view in range(views)]
    return np.stack([np.random.default_rng(purpose).random((n, 3)) for purpose in purposes])


def dropout_seed(seed: int, iteration: int) -> int:
    """Return the seed of torch's global generator, which dropout uses, for an outer iteration.

    The same on all workers, see ``models.global_dropout``.

    Args:
        seed: of the run.
        iteration: outer iteration 1, 2, ...
    """
    return int(np.random.default_rng([seed, _TORCH, iteration, 0]).integers(2**63))


class Decoder:
    """Decodes batches on threads, in advance of the step that uses them.

    Args:
        threads: number of threads.
        pinned: use pinned memory for views, which a GPU copies from while it computes.

    Attributes:
        waited_s: seconds that callers of ``batches`` have waited for images.
    """

    def __init__(self, threads: int = 2, pinned: bool = False) -> None:
        self.threads, self._pinned = threads, pinned
        self.waited_s = 0.0

    def batches(
        self,
        data: TrainingRows,
        batches: list[Rows],
        draws: NDArray[np.float64],
        workers: Workers,
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield each global batch's rows [N] and this worker's views [V, b, ...].

        Args:
            data: all training rows.
            batches: rows of each global batch.
            draws: [V, n, 3] by training row, see ``view_draws``.
            workers: who shares the batches.

        Raises:
            BadImage: an image does not decode.
        """
        with ThreadPoolExecutor(self.threads) as pool:

            def begin(rows: Rows) -> tuple[Tensor, list[Future[None]]]:
                own = rows[workers.own(len(rows))]
                out = data.empty(len(own), self._pinned)
                size = data.rows_a_task
                parts = [slice(at, at + size) for at in range(0, len(own), size)]
                return out, [
                    pool.submit(data.fill, out[:, part], own[part], draws[:, own[part]])
                    for part in parts
                ]

            begun = deque(begin(rows) for rows in batches[:_AHEAD])
            for position, rows in enumerate(batches):
                if position + _AHEAD < len(batches):
                    begun.append(begin(batches[position + _AHEAD]))
                out, parts = begun.popleft()
                self._wait(parts)
                yield rows, out

    def _wait(self, parts: list[Future[None]]) -> None:
        started = time.monotonic()
        for part in parts:
            part.result()
        self.waited_s += time.monotonic() - started


def _drop(vectors: NDArray[np.float32], share: float, draws: NDArray[np.float64]) -> None:
    """Set a share of the numbers of vectors [b, d] to 0, drawn by draws [b, 3], in place."""
    for vector, seed in zip(vectors, draws, strict=True):
        dropped = np.random.default_rng(seed.view(np.uint64)).random(len(vector)) < share
        vector[dropped] = 0
    vectors /= 1 - share
