"""SCHN's terms of codes: of one length, and of all lengths of nested codes at once."""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor

from schn_ray.methods.losses import cycle_loss, hash_loss, pair_nll


class CodeTerms(Protocol):
    """Loss terms that depend on the length of a code."""

    def hash_loss(self, U: Tensor, T: Tensor, gamma: float) -> Tensor:
        """Return ``losses.hash_loss`` of own rows with the codes of the global batch.

        Args:
            U: [b, K] relaxed codes of own rows.
            T: [b, N] target similarity.
            gamma: weight of the quantization term.
        """

    def cycle_loss(self, R: Tensor, U: Tensor) -> Tensor:
        """Return ``losses.cycle_loss``.

        Args:
            R: [b, K] reconstructed codes of own rows.
            U: [b, K] relaxed codes of own rows.
        """

    def pair_nll(self, U: Tensor, V: Tensor, scale: float, A: Tensor) -> Tensor:
        """Return ``losses.pair_nll`` of theta_ij = scale / K U_i . V_j [b, N].

        Args:
            U: [b, K] relaxed codes of own rows.
            V: [N, K] relaxed codes of all rows.
            scale: of theta.
            A: [b, N] 1 where the pair is similar, else 0.
        """


class OneLength(CodeTerms):
    """The terms of codes of K bits.

    Args:
        B: [N, K] codes of the global batch.
        own: own rows of it.
    """

    def __init__(self, B: Tensor, own: slice) -> None:
        self.B, self.B_own = B, B[own]

    def hash_loss(self, U: Tensor, T: Tensor, gamma: float) -> Tensor:
        """Return the hash loss of own rows."""
        return hash_loss(U, self.B, T, self.B_own, gamma)

    def cycle_loss(self, R: Tensor, U: Tensor) -> Tensor:
        """Return the mean of the squared differences."""
        return cycle_loss(R, U)

    def pair_nll(self, U: Tensor, V: Tensor, scale: float, A: Tensor) -> Tensor:
        """Return the negative log-likelihood of each pair."""
        return pair_nll(scale / U.shape[1] * (U @ V.T), A)


class MeanOfLengths(CodeTerms):
    """The means, over the lengths k of nested codes, of the terms of the first k bits.

    All lengths are one product and one sum: on small batches, five of each take five times as long.

    Args:
        codes: [N, L, K] codes of the global batch for each length k; only the first k count.
        lengths: L of them, ascending; the last is K.
        own: own rows of the batch.
    """

    def __init__(self, codes: Tensor, lengths: tuple[int, ...], own: slice) -> None:
        self.bits, self.share = _weights(lengths, codes.dtype, codes.device)
        self.B = codes * (self.share > 0)
        self.B_own = codes[own]

    def hash_loss(self, U: Tensor, T: Tensor, gamma: float) -> Tensor:
        """Return the mean of the hash losses of own rows."""
        products = (U @ self.B.flatten(0, 1).T).unflatten(1, self.B.shape[:2])  # [b, N, L]
        off = products / self.bits - T[:, :, None]
        gaps = (U[:, None] - self.B_own).square() * self.share  # [b, L, K]
        return 12 * (off.square() * self.bits).mean() + gamma * gaps.sum(dim=2).mean()

    def cycle_loss(self, R: Tensor, U: Tensor) -> Tensor:
        """Return the mean of the squared differences."""
        return ((R - U).square() * self.share.mean(dim=0)).sum(dim=1).mean()

    def pair_nll(self, U: Tensor, V: Tensor, scale: float, A: Tensor) -> Tensor:
        """Return the mean of the negative log-likelihoods of each pair."""
        theta = (U[:, None] * (scale * self.share)) @ V.T  # [b, L, N]
        return pair_nll(theta, A[:, None]).mean(dim=1)


@functools.cache
def _weights(
    lengths: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the lengths k [L], and [L, K]: 1/k for the first k bits, so that a sum is a mean."""
    bits = torch.tensor(lengths, dtype=dtype, device=device)
    return bits, (torch.arange(lengths[-1], device=device) < bits[:, None]) / bits[:, None]
