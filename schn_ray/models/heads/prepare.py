"""Centre features and scale them to length 1, as the rows were on which a head was fitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Prepare(nn.Module):
    """x - mean, then divided by its length; a row that equals the mean stays 0.

    Args:
        width: d, width of the features.
        unit: divide by the length.
    """

    mean: Tensor

    def __init__(self, width: int, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> prepared features [N, d]."""
        x = features - self.mean
        if not self.unit:
            return x
        length = x.square().sum(dim=1, keepdim=True).sqrt()
        return x / torch.where(length > 0, length, torch.ones_like(length))
