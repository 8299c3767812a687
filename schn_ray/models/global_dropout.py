"""Dropout that is one draw for the global batch, however many workers share it.

All workers have the same random state at the start of an iteration and run the same layers, so
each can draw the mask of all rows and apply its own part: dropping differs neither between one
worker and many nor between runs that were resized.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from schn_ray.core.workers import Workers

_Dropout = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class GlobalDropout(nn.Module):
    """One dropout layer, drawn for the rows of all workers.

    Args:
        layer: the layer to draw with; ``nn.Dropout`` and its kind, or ``StochasticDepth``.
        workers: who shares each global batch.

    Attributes:
        rows: N, of the global batch that the next ``forward`` sees a part of.
    """

    def __init__(self, layer: nn.Module, workers: Workers) -> None:
        super().__init__()
        self.layer, self.workers, self.rows = layer, workers, 0

    def forward(self, x: Tensor) -> Tensor:
        """Drop from this worker's rows [b, ...] what one process would drop from them."""
        if not self.training:
            return x
        row = x.shape[1:]
        if isinstance(self.layer, StochasticDepth):  # whole rows, or the whole batch
            row = torch.Size([1] * len(row))
        mask = self.layer(x.new_ones(self.rows, *row))
        return x * mask[self.workers.own(self.rows)]


def share_dropout(network: nn.Module, workers: Workers) -> list[GlobalDropout]:
    """Replace the network's dropout layers by ones that draw for the global batch.

    Args:
        network: with any number of dropout layers; those that drop nothing stay.
        workers: who shares each global batch; a single one needs no replacement.

    Returns:
        The new layers, whose ``rows`` have to be set before each global batch.
    """
    if workers.size == 1:
        return []
    shared = []
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (*_Dropout, StochasticDepth)) and child.p > 0:
                shared.append(GlobalDropout(child, workers))
                setattr(module, name, shared[-1])
    return shared
