"""The width of a network's features, from an image of zeros."""

from __future__ import annotations

import torch
from torch import nn


def feature_width(module: nn.Module, size: int) -> int:
    """Return the number of features that a network gives.

    Args:
        module: images [N, 3, S, S] -> features [N, d_v]; its training mode is unchanged.
        size: S.

    Example:
        >>> feature_width(nn.Flatten(), 2)
        12
    """
    training = module.training
    with torch.inference_mode():
        features = module.eval()(torch.zeros(1, 3, size, size))
    module.train(training)
    assert features.dim() == 2
    return int(features.shape[1])
