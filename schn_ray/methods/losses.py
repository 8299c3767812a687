"""Loss terms that methods share: pure functions, each a mean over the rows that it is given.

Source of SCHN's equations: docs/method.md, "Losses". B, T and A are constants in all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, softplus

from schn_ray.methods.base import Batch


def pairwise_loss(U: Tensor, B_all: Tensor, T: Tensor) -> Tensor:
    """Return the pairwise term of hash(U): 12/K mean_ij (K T_ij - U_i . B_j)^2.

    It pulls each inner product of a relaxed code and a code of the batch towards K T.

    Args:
        U: [b, K] relaxed codes of own rows i.
        B_all: [N, K] codes of all rows j of the global batch; 0 for a row that has none yet.
        T: [b, N] target similarity in [-r, 1].
    """
    bits = U.shape[1]
    return 12 / bits * mse_loss(U @ B_all.T, bits * T)


def hash_loss(U: Tensor, B_all: Tensor, T: Tensor, B: Tensor, gamma: float) -> Tensor:
    """Return hash(U) = 12/K mean_ij (K T_ij - U_i . B_j)^2 + gamma mean (U - B)^2.

    Args:
        U: [b, K] relaxed codes of own rows.
        B_all: [N, K] codes of the global batch.
        T: [b, N] target similarity.
        B: [b, K] codes of own rows.
        gamma: weight of the quantization term.
    """
    return pairwise_loss(U, B_all, T) + gamma * mse_loss(U, B)


def cycle_loss(R: Tensor, U: Tensor) -> Tensor:
    """Return the cycle term mean (R - U)^2; its gradient reaches both arguments.

    Args:
        R: [b, K] reconstructed codes of own rows.
        U: [b, K] relaxed codes of own rows.
    """
    return mse_loss(R, U)


def judged_real(logits: Tensor) -> Tensor:
    """Return mean BCE(D, 1): low where the discriminator takes the codes for real.

    Args:
        logits: output of the discriminators, of any shape.
    """
    return binary_cross_entropy_with_logits(logits, logits.new_ones(logits.shape))


def judged_fake(logits: Tensor) -> Tensor:
    """Return mean BCE(D, 0): low where the discriminator takes the codes for reconstructed.

    Args:
        logits: output of the discriminators, of any shape.
    """
    return binary_cross_entropy_with_logits(logits, logits.new_zeros(logits.shape))


def target_similarity(A: Tensor, negative: float) -> Tensor:
    """Return the target similarity T [b, N]: A with its zeros replaced.

    Args:
        A: [b, N], 1 where two rows share a label, else 0.
        negative: target of dissimilar pairs: 0 as published, or the soft negative -N1/N0.
    """
    return A if negative == 0 else A + negative * (1 - A)


def labelled_mean(own: Tensor, batch: Batch) -> Tensor:
    """Return a term that is the mean over the rows of the global batch that have a label.

    Args:
        own: [b] values of this worker's rows.
        batch: the global batch; without any label, the term is 0.
    """
    labelled = batch.Y.any(dim=1).to(own.dtype)
    count = labelled.sum().clamp(min=1)
    return (own * labelled[batch.own]).sum() * (len(batch.Y) / max(len(own), 1)) / count


def pair_nll(theta: Tensor, A: Tensor) -> Tensor:
    """Return softplus(theta) - A theta, the negative log-likelihood of each pair [b, m].

    Args:
        theta: [b, m] logits of being similar, a scaled product of two relaxed codes.
        A: [b, m] 1 where the pair is similar, else 0.
    """
    return softplus(theta) - A * theta


def balanced_mean(values: Tensor, A: Tensor, batch: Batch) -> Tensor:
    """Return the mean over similar pairs plus the mean over dissimilar ones (HashNet).

    The counts are those of all workers, so the term is exact on any number of them. Where one kind
    of pair is missing, its half is 0.

    Args:
        values: [b, m] of pairs of own rows with columns that all workers share.
        A: [b, m] 1 where the pair is similar, else 0.
        batch: the global batch.
    """
    own = torch.stack([A.sum(), (1 - A).sum()])
    similar, dissimilar = batch.workers.sum(own.detach()).clamp(min=1)
    sums = (values * A).sum() / similar + (values * (1 - A)).sum() / dissimilar
    return sums * (len(batch.Y) / max(len(values), 1))


def square_quantisation(U: Tensor) -> Tensor:
    """Return mean (|u| - 1)^2, which is mean (u - sign u)^2 (DPSH).

    Args:
        U: [b, K].
    """
    return (U.abs() - 1).square().mean()
