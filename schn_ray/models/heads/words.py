"""A row as the sum of one word of each of M codebooks: residual quantisation (DPQ)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError
from schn_ray.models.heads.blocks import signed_blocks


class WordsHead(nn.Module):
    """X = tanh(F W + b) in words: of each codebook E_m the word nearest to what is left of X.

    A code has a block a codebook, with a +1 at the word that was taken and -1 elsewhere. Let R_m be
    the words before leave of X. h is R_m . e - |e|^2 / 2 for each word e of E_m, less the middle of
    the two largest: its signs are the code. For the code b of another row, with the words e_m, h .
    b / 2 is sum_m (R_m . e_m - |e_m|^2 / 2) less a constant. That is -|X - sum_m e_m|^2 / 2 less a
    constant, but that each product of two words of the other row has this row's earlier word in
    it; so it is exact where the two rows have all words but the last in common.

    Args:
        width: d, width of the features.
        hidden: D, width of X and of the words.
        bits: K, the codebooks together.
        block: k, words of a codebook.

    Attributes:
        words: E [M, k, D]; the method that trains them writes them.

    Raises:
        SchnRayError: K is not a multiple of k.
    """

    words: Tensor

    def __init__(self, width: int, hidden: int, bits: int, block: int) -> None:
        super().__init__()
        if bits % block:
            raise SchnRayError(f"{bits} bits do not divide into codebooks of {block} words")
        self.linear = nn.Linear(width, hidden)
        self.register_buffer("words", torch.randn(bits // block, block, hidden) / 100)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> X [N, D] while training, which a loss descends; else h [N, K]."""
        X = torch.tanh(self.linear(features))
        if self.training:
            return X
        with torch.autocast(features.device.type, enabled=False):
            return signed_blocks(word_scores(X.to(self.words), self.words)[0])


def word_scores(X: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return how near each word is to what the nearest words of the codebooks before leave of X.

    Args:
        X: [N, D].
        words: E [M, k, D].

    Returns:
        R_m . e - |e|^2 / 2 for each word e of each codebook m [N, M, k], the largest for the
        nearest; and the nearest words [N, M, D].
    """
    scores, nearest, left = [], [], X
    for E in words:
        scores.append(left @ E.T - E.square().sum(dim=1) / 2)
        nearest.append(E[scores[-1].argmax(dim=1)])
        left = left - nearest[-1]
    return torch.stack(scores, dim=1), torch.stack(nearest, dim=1)
