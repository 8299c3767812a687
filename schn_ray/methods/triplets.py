"""Triplets: a row, one similar to it and one that is not; their distances and losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from schn_ray.methods.base import Batch
from schn_ray.methods.losses import counted_mean, other_rows


class Triplets(NamedTuple):
    """The triplets (i, p, n) of own rows i with all rows p and n of a batch.

    Attributes:
        values: [b, N, N] loss of each.
        valid: [b, N, N] 1 where p shares a label with i, p is not i, and n shares none; else 0.
    """

    values: Tensor
    valid: Tensor


def soft_hamming(U: Tensor, U_all: Tensor) -> Tensor:
    """Return |u_i - u_j|^2 / 4 [b, N]: the Hamming distance in bits, where codes are signs.

    Args:
        U: [b, K] relaxed codes of own rows.
        U_all: [N, K] of all rows.
    """
    # differences, not products: the gradient of rounding would pull a row from itself
    return (U[:, None] - U_all).square().sum(dim=2) / 4


def soft_hamming_of_rows(U: Tensor, V: Tensor) -> Tensor:
    """Return |u_i - v_i|^2 / 4 [b], of each row with the one of the same number.

    Args:
        U: [b, K] relaxed codes.
        V: [b, K] relaxed codes.
    """
    return (U - V).square().sum(dim=1) / 4


def hinge_triplets(D: Tensor, margin: float, batch: Batch) -> Triplets:
    """Return max(0, margin + D_ip - D_in) of all triplets; memory is b N^2.

    Args:
        D: [b, N] distances of own rows from all rows.
        margin: by which a dissimilar row must be farther than a similar one.
        batch: the global batch.
    """
    A = batch.similar
    valid = (A * other_rows(batch))[:, :, None] * (1 - A)[:, None]
    return Triplets((margin + D[:, :, None] - D[:, None]).clamp(min=0), valid)


def triplet_mean(triplets: Triplets, batch: Batch) -> Tensor:
    """Return the mean loss of the valid triplets of all workers; 0 where there is none.

    Args:
        triplets: of own rows.
        batch: the global batch.
    """
    return counted_mean(triplets.values, triplets.valid, batch)


def violated(triplets: Triplets) -> Tensor:
    """Return [b, N, N]: 1 where a valid triplet has a loss, else 0.

    Args:
        triplets: of own rows.
    """
    return triplets.valid * (triplets.values.detach() > 0).to(triplets.valid)
