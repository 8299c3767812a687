"""One linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class LinearHead(nn.Module):
    """h = F W + b.

    Args:
        width: d, width of the features.
        bits: K.
    """

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, bits)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> h [N, K]."""
        return self.linear(features)
