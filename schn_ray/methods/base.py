"""The protocol between the loop and a hashing method; ``schn.Schn`` is its first implementation."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from schn_ray.models.encoder import ImageNetwork


class Batch(NamedTuple):
    """A global batch as one worker sees it: its own images, and what is known of all rows.

    Attributes:
        images: [b, 3, S, S] float, this worker's rows only.
        Y: [N, C] multi-hot labels of all rows.
        B: [N, K] codes of all rows, 0 where a row has none yet.
    """

    images: Tensor
    Y: Tensor
    B: Tensor


class Relaxed(NamedTuple):
    """Relaxed image, semantic and latent codes [b, K] of this worker's rows."""

    U_v: Tensor
    U_s: Tensor
    U_z: Tensor


class Step(NamedTuple):
    """What one update gives back, detached and on the device.

    Attributes:
        terms: loss terms by name, unweighted, means over this worker's rows.
        relaxed: this worker's relaxed codes, before the update.
    """

    terms: dict[str, Tensor]
    relaxed: Relaxed


class Method(Protocol):
    """Networks to train, one step, a code update, and the encoder that is released."""

    optimisers: dict[str, Optimizer]

    @property
    def networks(self) -> nn.Module:
        """All networks that are trained."""

    @property
    def encoder(self) -> ImageNetwork:
        """The network that is released."""

    def begin_iteration(self, iteration: int) -> None:
        """Prepare outer iteration 1, 2, ...: set the learning rates."""

    def step(self, batch: Batch) -> Step:
        """Descend all losses once on a global batch."""

    def update(self, rows: Tensor, B: Tensor, relaxed: Relaxed) -> Tensor:
        """Solve the codes of this worker's training rows [n_w], given as B [n_w, K]."""
