"""The semantic network: the paper's flexible semantic space of labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SemanticNetwork(nn.Module):
    """Embed label vectors, so that a label set has a feature and a code, as an image has.

    Args:
        classes: C.
        semantic_dim: d_s.
        bits: K.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, classes: int, semantic_dim: int, bits: int, hidden_dim: int = 1024) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(classes, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, semantic_dim),
            nn.ReLU(),
        )
        self.hash = nn.Linear(semantic_dim, bits)

    def forward(self, Y: Tensor) -> tuple[Tensor, Tensor]:
        """Y [N, C] multi-hot -> F_s [N, d_s], U_s [N, K]."""
        F_s = self.embed(Y)
        return F_s, torch.tanh(self.hash(F_s))
