"""Which rows a step sees, in which order, and how their images look: functions of the seed.

Nothing here has a state to save. Outer iteration t, epoch e, the row and the seed decide
everything, so the sequence of global batches is the same on any number of workers, and a run that
was stopped goes on with the very batches that it would have seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.workers import Workers
from schn_ray.data.images import Preprocessing, training_view
from schn_ray.training.config import AugmentConfig

Rows = NDArray[np.int64]
_SAMPLE, _ORDER, _VIEW, _TORCH = range(4)  # one random stream a purpose
_AHEAD = 2  # batches that are decoded before they are wanted
_ROWS_AT_ONCE = 8  # rows that a thread decodes in one go


@dataclass(frozen=True)
class TrainingImages:
    """The training rows 0..n-1: their images in the store, their labels, how they are viewed.

    Attributes:
        image: store row -> encoded bytes.
        store_rows: [n] where each training row lies in the store.
        labels: [n, C].
    """

    image: Callable[[int], bytes]
    store_rows: Rows
    labels: csr_array
    preprocessing: Preprocessing
    augment: AugmentConfig

    def __len__(self) -> int:
        return len(self.store_rows)

    def fill(self, out: Tensor, rows: Rows, draws: NDArray[np.float64]) -> None:
        """Decode, crop and mirror rows [b] by their draws [b, 3] into uint8 [b, 3, S, S]."""
        views = out.numpy()
        for view, row, draw in zip(views, rows, draws, strict=True):
            image = self.image(int(self.store_rows[row]))
            view[:] = training_view(
                image, self.preprocessing, self.augment.pad, self.augment.flip, draw
            )


def sampled_rows(n: int, samples: int, seed: int, iteration: int) -> Rows:
    """Draw the training rows of an outer iteration, sorted; all of them if there are no more."""
    if samples >= n:
        return np.arange(n)
    rng = np.random.default_rng([seed, _SAMPLE, iteration])
    return np.sort(rng.choice(n, samples, replace=False))


def global_batches(
    rows: Rows, batch_size: int, seed: int, iteration: int, epoch: int
) -> list[Rows]:
    """Put an epoch's rows in order and cut them into batches of nearly equal size.

    Equal cuts of at most ``batch_size`` leave no small last batch, whose attention and pairs would
    be drawn from a handful of rows.
    """
    order = np.random.default_rng([seed, _ORDER, iteration, epoch]).permutation(rows)
    return np.array_split(order, -(-len(rows) // batch_size))


def view_draws(n: int, seed: int, iteration: int, epoch: int) -> NDArray[np.float64]:
    """Draw [n, 3] numbers in [0, 1): where each row's view is cropped, and whether mirrored."""
    return np.random.default_rng([seed, _VIEW, iteration, epoch]).random((n, 3))


def dropout_seed(seed: int, iteration: int) -> int:
    """Return the seed of torch's own generator for an iteration: dropout draws from it.

    The same on all workers; see ``global_dropout``.
    """
    return int(np.random.default_rng([seed, _TORCH, iteration, 0]).integers(2**63))


class Decoder:
    """Decodes batches ahead of the step that wants them, on threads of its own.

    Args:
        threads: how many decode at once.
        pinned: put views into memory that a GPU copies from while it computes.

    Attributes:
        waited_s: seconds that ``batches`` kept its caller waiting.
    """

    def __init__(self, threads: int = 2, pinned: bool = False) -> None:
        self._threads, self._pinned = threads, pinned
        self.waited_s = 0.0

    def batches(
        self,
        data: TrainingImages,
        batches: list[Rows],
        draws: NDArray[np.float64],
        workers: Workers,
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield each global batch's rows [N] and this worker's views, uint8 [b, 3, S, S].

        Args:
            data: all training rows.
            batches: rows of each global batch.
            draws: [n, 3], by training row.
            workers: who shares the batches.
        """
        with ThreadPoolExecutor(self._threads) as pool:

            def begin(rows: Rows) -> tuple[Tensor, list[Future[None]]]:
                own = rows[workers.own(len(rows))]
                side = data.preprocessing.crop
                out = torch.empty(
                    (len(own), 3, side, side), dtype=torch.uint8, pin_memory=self._pinned
                )
                parts = [slice(at, at + _ROWS_AT_ONCE) for at in range(0, len(own), _ROWS_AT_ONCE)]
                return out, [
                    pool.submit(data.fill, out[part], own[part], draws[own[part]]) for part in parts
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
