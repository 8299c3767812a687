"""The protocol between the training loop and a hashing method."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from schn_ray.models.encoder import ImageNetwork


class Batch(NamedTuple):
    """A global batch as one worker gets it: its own images, labels and codes of all rows.

    Attributes:
        images: [b, 3, S, S] float, of this worker's rows only.
        Y: [N, C] multi-hot labels of all rows.
        B: [N, K] codes of all rows; 0 for a row that has none yet.
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
    """Results of one step, detached and on the device.

    Attributes:
        terms: loss terms by name, unweighted; each a mean over this worker's rows.
        relaxed: this worker's relaxed codes, as before the step changed the weights.
    """

    terms: dict[str, Tensor]
    relaxed: Relaxed


class Method(Protocol):
    """Networks to train, a training step, a code update, and the encoder to release."""

    optimisers: dict[str, Optimizer]

    @property
    def networks(self) -> nn.Module:
        """All networks that training changes."""

    @property
    def encoder(self) -> ImageNetwork:
        """The network that is released."""

    def begin_iteration(self, iteration: int) -> None:
        """Set the learning rates for outer iteration 1, 2, ..."""

    def step(self, batch: Batch) -> Step:
        """Take one step of every optimiser on a global batch."""

    def update(self, rows: Tensor, B: Tensor, relaxed: Relaxed) -> Tensor:
        """Return new codes [n_w, K] of this worker's training rows [n_w], whose codes are B."""
