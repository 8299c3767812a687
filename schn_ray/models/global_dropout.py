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
        layer: the layer to draw with; ``nn.Dropout`` and its kind, or one that drops whole rows:
            ``StochasticDepth``, and what timm and transformers call ``DropPath``.
        workers: who shares each global batch.

    Attributes:
        rows: N, of the global batch that the next ``forward`` sees a part of: own rows, or one view
            of them after the other.
    """

    def __init__(self, layer: nn.Module, workers: Workers) -> None:
        super().__init__()
        self.layer, self.workers, self.rows = layer, workers, 0

    def forward(self, x: Tensor) -> Tensor:
        """Drop from this worker's rows [b, ...] what one process would drop from them."""
        if not self.training:
            return x
        own = self.workers.own(self.rows)
        views = len(x) // (own.stop - own.start)
        rows = x[:1].expand(views * self.rows, *x.shape[1:])
        if not isinstance(self.layer, _Dropout):  # whole rows, or the whole batch
            rows = rows[(slice(None), *[slice(1)] * (x.ndim - 1))]
        # as x lies in memory: numbers are drawn in this order
        ones = torch.ones_like(rows, memory_format=_memory_format(x))
        return x * self.layer(ones).unflatten(0, (views, self.rows))[:, own].flatten(0, 1)


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not x.is_contiguous() else torch.contiguous_format


def _drops(layer: nn.Module) -> bool:
    if type(layer).__name__.endswith("DropPath"):  # a class of each model in transformers
        return bool(getattr(layer, "drop_prob", 0))
    return isinstance(layer, (*_Dropout, StochasticDepth)) and layer.p > 0


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
            if _drops(child):
                shared.append(GlobalDropout(child, workers))
                setattr(module, name, shared[-1])
    return shared
