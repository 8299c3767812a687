"""One-hot blocks: the largest of each k outputs is the code, not their signs (SuBiC)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError

_LEAST = 1e-6


class BlocksHead(nn.Module):
    """z = F W + b in blocks of k; a code has a +1 a block, at the largest z, and -1 elsewhere.

    h is relu(z) less the middle of its two largest values, block by block: its signs are the code,
    and h . b / 2, for the code b of another row, is the sum of this row's relu(z) at the other's
    ones, less a constant. That sum is the asymmetric score by look-up tables of the paper.

    Args:
        width: d, width of the features.
        bits: K, the blocks together.
        block: k, outputs of a block.

    Raises:
        SchnRayError: K is not a multiple of k.
    """

    def __init__(self, width: int, bits: int, block: int) -> None:
        super().__init__()
        if bits % block:
            raise SchnRayError(f"{bits} bits do not divide into blocks of {block}")
        self.block = block
        self.linear = nn.Linear(width, bits)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> z [N, K] while training, which a loss descends; else h [N, K].

        Of equal outputs of a block, the first is the largest. Outputs below 0 count as 0.
        """
        z: Tensor = self.linear(features)
        if self.training:
            return z
        return signed_blocks(z.relu().unflatten(1, (-1, self.block)))


def one_hot_blocks(scores: Tensor) -> Tensor:
    """Return +1 at the first largest score of each block and -1 elsewhere: [N, M k].

    Args:
        scores: [N, M, k], of the outputs of M blocks.
    """
    largest = scores.argmax(dim=2, keepdim=True)
    return torch.full_like(scores, -1.0).scatter(2, largest, 1.0).flatten(1)


def signed_blocks(scores: Tensor) -> Tensor:
    """Return scores less the middle of the two largest of their block, whose signs are the code.

    Args:
        scores: [N, M, k], of the outputs of M blocks.

    Returns:
        h [N, M k], with the signs of ``one_hot_blocks``.
    """
    ordered = scores.sort(dim=2, descending=True).values
    middle = (ordered[:, :, :1] + ordered[:, :, 1:2]) / 2
    # equal outputs are 0 from their middle, and must have the sign of the code all the same
    distance = (scores - middle).abs().clamp(min=_LEAST).flatten(1)
    return one_hot_blocks(scores) * distance
