"""Features from distances to anchors: a Gaussian kernel, and an anchor graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KernelMap(nn.Module):
    """phi_j(x) = exp(-||x - a_j||^2 / w).

    Args:
        width: d, width of the features.
        anchors: m, number of anchors.
    """

    anchors: Tensor
    kernel_width: Tensor

    def __init__(self, width: int, anchors: int) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.zeros(anchors, width))
        self.register_buffer("kernel_width", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Prepared features [N, d] -> kernel features [N, m]."""
        return torch.exp(-anchor_distances(x, self.anchors) / self.kernel_width)


class AnchorGraphMap(nn.Module):
    """z_j: how much of a row lies at anchor j, one of its s nearest; their sum is 1.

    z_j is proportional to exp(-||x - a_j||^2 / w) at the s nearest anchors, and 0 elsewhere (Liu et
    al., ICML 2011).

    Args:
        width: d, width of the features.
        anchors: m, number of anchors.
        nearest: s.
    """

    anchors: Tensor
    kernel_width: Tensor

    def __init__(self, width: int, anchors: int, nearest: int) -> None:
        super().__init__()
        self.nearest = nearest
        self.register_buffer("anchors", torch.zeros(anchors, width))
        self.register_buffer("kernel_width", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Prepared features [N, d] -> Z [N, m]."""
        distances = anchor_distances(x, self.anchors)
        near, columns = torch.topk(distances, self.nearest, dim=1, largest=False)
        z = torch.softmax(-near / self.kernel_width, dim=1)
        return torch.zeros_like(distances).scatter(1, columns, z)


def anchor_distances(x: Tensor, anchors: Tensor) -> Tensor:
    """Return the squared distance of each row from each anchor: [N, m].

    Args:
        x: [N, d].
        anchors: [m, d].
    """
    lengths = x.square().sum(dim=1, keepdim=True)
    distances = lengths - 2 * (x @ anchors.T) + anchors.square().sum(dim=1)
    return distances.clamp(min=0)  # rounding can go below
