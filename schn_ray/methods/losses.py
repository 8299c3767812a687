"""SCHN's loss terms: pure functions, means over the rows they are given.

Source of each: the method's page; B, T and A are constants in all of them.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def pairwise_loss(U: Tensor, B_all: Tensor, T: Tensor) -> Tensor:
    """Pull the inner product of a relaxed code with each code of the batch towards K T.

    12/K mean_ij (K T_ij - U_i . B_j)^2 over own rows i and all rows j.

    Args:
        U: [b, K] relaxed codes of own rows.
        B_all: [N, K] codes of the global batch, 0 where a row has none yet.
        T: [b, N] target similarity in [-r, 1].
    """
    bits = U.shape[1]
    return 12 / bits * mse_loss(U @ B_all.T, bits * T)


def hash_loss(U: Tensor, B_all: Tensor, T: Tensor, B: Tensor, gamma: float) -> Tensor:
    """Pairwise loss plus gamma times the mean squared distance to the own codes B [b, K]."""
    return pairwise_loss(U, B_all, T) + gamma * mse_loss(U, B)


def cycle_loss(R: Tensor, U: Tensor) -> Tensor:
    """Mean squared difference of reconstructed R and relaxed U codes [b, K]; moves both."""
    return mse_loss(R, U)


def judged_real(logits: Tensor) -> Tensor:
    """Binary cross-entropy against the answer "real"."""
    return binary_cross_entropy_with_logits(logits, logits.new_ones(logits.shape))


def judged_fake(logits: Tensor) -> Tensor:
    """Binary cross-entropy against the answer "fake"."""
    return binary_cross_entropy_with_logits(logits, logits.new_zeros(logits.shape))


def target_similarity(A: Tensor, negative: float) -> Tensor:
    """Return A [b, N] with its zeros replaced by ``negative`` (published: 0)."""
    return A if negative == 0 else A + negative * (1 - A)
