"""A hidden layer before the linear one."""

from __future__ import annotations

from torch import Tensor, nn


class MlpHead(nn.Module):
    """h = relu(F W_1 + b_1) W_2 + b_2.

    Args:
        width: d, width of the features.
        hidden: width of the hidden layer.
        bits: K.
    """

    def __init__(self, width: int, hidden: int, bits: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.linear = nn.Linear(hidden, bits)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> h [N, K]."""
        return self.linear(self.hidden(features).relu())
