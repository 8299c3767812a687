"""The head that a closed form or a fit leaves: prepared features, a map of them, a projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError
from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.anchors import AnchorGraphMap, KernelMap
from schn_ray.models.heads.prepare import Prepare

Output = Literal["sign", "cos", "two_layer"]


class FittedHead(nn.Module):
    """u = map(prepare(x)) W - t, and h is u, cos(u), or two layers of u.

    ``cos`` are eigenfunctions (Spectral Hashing). ``two_layer`` is ``[u, |u| - theta(u)]`` cut to K
    columns, with one threshold theta where u > 0 and another elsewhere (two-layer Anchor Graph
    Hashing). All numbers are buffers: nothing is descended. The head computes in float32 whatever
    the network's precision: distances of close points vanish in bfloat16.

    Args:
        spec: the map, the output, and their sizes.
        width: d, width of the features.
        bits: K.
    """

    W: Tensor
    t: Tensor
    thresholds: Tensor

    def __init__(self, spec: HeadSpec, width: int, bits: int) -> None:
        super().__init__()
        self.bits, self.output = bits, spec.output
        self.prepare = Prepare(width, spec.unit)
        self.map = _map(spec, width)
        columns = -(-bits // 2) if spec.output == "two_layer" else bits
        rows = width if spec.anchors is None else spec.anchors
        self.register_buffer("W", torch.zeros(rows, columns))
        self.register_buffer("t", torch.zeros(columns))
        if spec.output == "two_layer":
            self.register_buffer("thresholds", torch.zeros(2, columns))

    def fill(self, **numbers: NDArray[np.floating] | float) -> None:
        """Set what was fitted, rounded to float32.

        Args:
            numbers: ``mean`` [d], ``W`` [d', K'] and ``t`` [K']; with a map also ``anchors`` [m, d]
                and ``kernel_width``; for two layers also ``thresholds`` [2, K'], first where u > 0.

        Raises:
            ValueError: a name or a shape that this head does not have.
        """
        buffers = _by_last_name(dict(self.named_buffers()))
        if numbers.keys() != buffers.keys():
            raise ValueError(f"expected {sorted(buffers)}, got {sorted(numbers)}")
        for name, value in numbers.items():
            values = torch.as_tensor(np.asarray(value, np.float64))
            if values.shape != buffers[name].shape:
                expected, got = tuple(buffers[name].shape), tuple(values.shape)
                raise ValueError(f"{name}: expected the shape {expected}, got {got}")
            buffers[name].copy_(values)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> h [N, K]."""
        with torch.autocast(features.device.type, enabled=False):
            u = self.map(self.prepare(features.float())) @ self.W - self.t
            if self.output == "cos":
                return torch.cos(u)
            if self.output == "two_layer":
                theta = torch.where(u > 0, self.thresholds[0], self.thresholds[1])
                return torch.cat([u, u.abs() - theta], dim=1)[:, : self.bits]
            return u


def _by_last_name(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.rpartition(".")[2]: buffer for name, buffer in buffers.items()}


def _map(spec: HeadSpec, width: int) -> nn.Module:
    if spec.map == "identity":
        return nn.Identity()
    if spec.anchors is None:
        raise SchnRayError(f"a head with the map '{spec.map}' needs 'anchors', how many there are")
    if spec.map == "kernel":
        return KernelMap(width, spec.anchors)
    if spec.nearest is None:
        raise SchnRayError("a head with the map 'anchor_graph' needs 'nearest', how many count")
    return AnchorGraphMap(width, spec.anchors, spec.nearest)
