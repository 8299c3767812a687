"""Which rows a step sees, in which order, and how their images look: functions of the seed.

Nothing here has a state to save. Outer iteration t, epoch e, the row and the seed decide
everything, so the sequence of global batches is the same on any number of workers, and a run that
was stopped goes on with the very batches that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.config import AugmentConfig
from schn_ray.distributed import Workers
from schn_ray.images import Preprocessing, training_view

Rows = NDArray[np.int64]
_SAMPLE, _ORDER, _VIEW, _TORCH = range(4)  # one random stream a purpose
_DECODING_THREADS = 2


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

    def views(self, rows: Rows, draws: NDArray[np.float64]) -> Tensor:
        """Decode, crop and mirror rows [b] by their draws [b, 3] -> uint8 [b, 3, S, S]."""
        return torch.from_numpy(
            np.stack([self._view(row, draw) for row, draw in zip(rows, draws, strict=True)])
        )

    def _view(self, row: np.int64, draw: NDArray[np.float64]) -> NDArray[np.uint8]:
        image = self.image(int(self.store_rows[row]))
        return training_view(image, self.preprocessing, self.augment.pad, self.augment.flip, draw)


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


def dropout_seed(seed: int, iteration: int, rank: int) -> int:
    """Return the seed of torch's own generator, which dropout draws from, for an iteration."""
    return int(np.random.default_rng([seed, _TORCH, iteration, rank]).integers(2**63))


def epoch_batches(
    data: TrainingImages,
    batches: list[Rows],
    draws: NDArray[np.float64],
    workers: Workers,
) -> Iterator[tuple[Rows, Tensor]]:
    """Yield each global batch's rows [N] and this worker's views [b, 3, S, S], decoded ahead.

    Args:
        data: all training rows.
        batches: rows of each global batch.
        draws: [n, 3], by training row.
        workers: who shares the batches.
    """
    with ThreadPoolExecutor(_DECODING_THREADS) as threads:

        def decode(rows: Rows) -> list[Future[Tensor]]:
            own = rows[workers.own(len(rows))]
            parts = [p for p in np.array_split(own, _DECODING_THREADS) if len(p)]
            return [threads.submit(data.views, part, draws[part]) for part in parts]

        ahead = decode(batches[0])
        for position, rows in enumerate(batches):
            parts = ahead
            if position + 1 < len(batches):
                ahead = decode(batches[position + 1])
            yield rows, torch.cat([part.result() for part in parts])
