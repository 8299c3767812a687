"""Batch normalisation after a head: each bit has the mean 0 and the variance 1 over a batch."""

from __future__ import annotations

from torch import Tensor, nn


class NormalisedHead(nn.Module):
    """h = batch norm(head(F)), over the rows of all workers.

    It stays a layer of the released network: with the learned means and variances it is a scale and
    a shift of each bit.

    Args:
        head: features [N, d] -> [N, K].
        bits: K.
    """

    def __init__(self, head: nn.Module, bits: int) -> None:
        super().__init__()
        self.head = head
        # of images, as data_parallel makes only these global
        self.norm = nn.BatchNorm2d(bits)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> h [N, K]."""
        h: Tensor = self.norm(self.head(features)[:, :, None, None])
        return h[:, :, 0, 0]
