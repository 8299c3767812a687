"""Loss terms that methods share: pure functions, each a mean over the rows that it is given.

Source of SCHN's equations: docs/method.md, "Losses". B, T and A are constants in all of them.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cosine_similarity,
    logsigmoid,
    mse_loss,
    normalize,
    softplus,
)

from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Batch, PairKinds


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
    labelled = (own * batch.labelled[batch.own]).sum()
    return labelled * (len(batch.Y) / max(len(own), 1)) / batch.labelled_count


def pair_nll(theta: Tensor, A: Tensor) -> Tensor:
    """Return softplus(theta) - A theta, the negative log-likelihood of each pair [b, m].

    Args:
        theta: [b, m] logits of being similar, a scaled product of two relaxed codes.
        A: [b, m] 1 where the pair is similar, else 0.
    """
    return softplus(theta) - A * theta


def balanced_mean(values: Tensor, pairs: PairKinds, batch: Batch) -> Tensor:
    """Return the mean over similar pairs plus the mean over dissimilar ones (HashNet).

    The counts are those of all workers, so the term is exact on any number of them. Where one kind
    of pair is missing, its half is 0.

    Args:
        values: [b, m] of pairs of own rows with columns that all workers share.
        pairs: which of them are similar, and which are not; ``batch.pairs`` within the batch.
        batch: the global batch.
    """
    sums = (values * pairs.similar).sum() / pairs.counts[0]
    sums = sums + (values * pairs.dissimilar).sum() / pairs.counts[1]
    return sums * (len(batch.Y) / max(len(values), 1))


def label_overlap(batch: Batch) -> Tensor:
    """Return [b, N]: labels that an own row and a row have in common, over those of either.

    Args:
        batch: the global batch.
    """
    Y, Y_own = batch.Y, batch.Y[batch.own]
    common = Y_own @ Y.T
    either = Y_own.sum(dim=1, keepdim=True) + Y.sum(dim=1) - common
    return common / either.clamp(min=1)


def square_quantisation(U: Tensor) -> Tensor:
    """Return mean (|u| - 1)^2, which is mean (u - sign u)^2 (DPSH).

    Args:
        U: [b, K].
    """
    return (U.abs() - 1).square().mean()


def logcosh_quantisation(U: Tensor) -> Tensor:
    """Return mean log cosh(|u| - 1) (DHN).

    Args:
        U: [b, K].
    """
    a = (U.abs() - 1).abs()
    return (a + softplus(-2 * a) - log(2)).mean()


def similar_to_all(batch: Batch, label_sets: LabelSets) -> Tensor:
    """Return [b, n]: 1 where an own row shares a label with a training row, else 0.

    Args:
        batch: the global batch.
        label_sets: of the n training rows.
    """
    Y = torch.from_numpy(label_sets.sets.toarray()).to(batch.Y)
    similar = (batch.Y[batch.own] @ Y.T > 0).to(batch.Y)
    return similar[:, torch.from_numpy(label_sets.set_of_row).to(similar.device)]


def other_rows(batch: Batch) -> Tensor:
    """Return [b, N]: 0 where an own row meets itself in the batch, else 1.

    Args:
        batch: the global batch.
    """
    return 1 - torch.eye(len(batch.Y)).to(batch.Y)[batch.own]


def counted_mean(values: Tensor, counted: Tensor, batch: Batch) -> Tensor:
    """Return the mean of the values that count, over the rows of all workers; 0 if none does.

    Args:
        values: [b, ...] of own rows.
        counted: of the same shape: 1 where a value counts, else 0.
        batch: the global batch.
    """
    count = batch.workers.sum(counted.detach().sum()).clamp(min=1)
    return (values * counted).sum() * (len(batch.Y) / max(len(values), 1)) / count


def cosines(X: Tensor, Z: Tensor) -> Tensor:
    """Return the cosine of each row of X with each row of Z [b, m].

    Args:
        X: [b, D].
        Z: [m, D].
    """
    return normalize(X, dim=1) @ normalize(Z, dim=1).T


def focal_loss(logits: Tensor, Y: Tensor) -> Tensor:
    """Return the mean of -alpha_t (1 - p_t)^2 log p_t over entries, alpha 1/4 for labels, else 3/4.

    Args:
        logits: [b, C] of own rows.
        Y: [b, C] labels.
    """
    log_p = logsigmoid((2 * Y - 1) * logits)
    alpha = 0.25 * Y + 0.75 * (1 - Y)
    return -(alpha * (1 - log_p.exp()).square() * log_p).mean()


def cosines_of_halves(X: Tensor) -> Tensor:
    """Return cos(x_i, x_(i + m)) of rows of the two halves [m]; an odd last row has no partner.

    Args:
        X: [N, D] rows of the whole batch.
    """
    m = len(X) // 2
    return cosine_similarity(X[:m], X[m : 2 * m])
