"""Networks that make up images, or vectors, of given labels, and the labels to make them of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from schn_ray.core.workers import Workers
from schn_ray.data.labels import LabelSets
from schn_ray.models.parallel import GlobalBatchNorm

NOISE = 100
SIDE = 32
# pixels normalised by the means and deviations of ImageNet lie between -2.12 and 2.64
_RANGE = 2.4


class ImageGenerator(nn.Module):
    """Noise and labels -> images of 32 pixels: 4 x 4 x 256, doubled three times by convolutions.

    Args:
        classes: C.
        workers: who shares each global batch; batch normalisation is over all of it.
    """

    def __init__(self, classes: int, workers: Workers) -> None:
        super().__init__()
        self.first = nn.Linear(NOISE + classes, 4 * 4 * 256)
        layers: list[nn.Module] = [_normalised(256, workers), nn.ReLU()]
        for width in (256, 128, 64):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width // 2, 3, padding=1)]
            layers += [_normalised(width // 2, workers), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(32, 3, 3, padding=1), nn.Tanh())

    def forward(self, noise: Tensor, Y: Tensor, like: Tensor) -> Tensor:
        """Noise [b, 100], labels [b, C] -> normalised images of the size of ``like``."""
        first = self.first(torch.cat([noise, Y], dim=1))
        images = _RANGE * self.layers(first.unflatten(1, (256, 4, 4)))
        return _resized(images, like.shape[-1])

    def as_made(self, images: Tensor) -> Tensor:
        """Return real images no sharper than made ones, which would give them away."""
        side = images.shape[-1]
        return _resized(_resized(images, min(SIDE, side)), side)


class VectorGenerator(nn.Module):
    """Noise and labels -> vectors, by two hidden layers.

    Args:
        classes: C.
        width: D of the vectors.
        workers: who shares each global batch; batch normalisation is over all of it.
    """

    def __init__(self, classes: int, width: int, workers: Workers) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NOISE + classes, 256),
            _OfVectors(_normalised(256, workers)),
            nn.ReLU(),
            nn.Linear(256, 256),
            _OfVectors(_normalised(256, workers)),
            nn.ReLU(),
            nn.Linear(256, width),
        )

    def forward(self, noise: Tensor, Y: Tensor, like: Tensor) -> Tensor:
        """Noise [b, 100], labels [b, C] -> vectors [b, D]."""
        made: Tensor = self.layers(torch.cat([noise, Y], dim=1))
        return made

    def as_made(self, vectors: Tensor) -> Tensor:
        """Return real vectors as they are."""
        return vectors


Generator = ImageGenerator | VectorGenerator


class _OfVectors(nn.Module):
    """Batch normalisation, which is of images, of vectors."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x[:, :, None, None])
        return normalised[:, :, 0, 0]


def generator_for(backbone: nn.Module, classes: int, width: int, workers: Workers) -> Generator:
    """Return a generator of what a backbone takes.

    Args:
        backbone: the identity takes vectors, any other one images.
        classes: C.
        width: of the vectors.
        workers: who shares each global batch.
    """
    if isinstance(backbone, nn.Identity):
        return VectorGenerator(classes, width, workers)
    return ImageGenerator(classes, workers)


@contextmanager
def unremembered(network: nn.Module) -> Iterator[None]:
    """Within it, batch normalisation does not add to its running means and variances.

    They are used on real images only, so made ones must not shift them.

    Args:
        network: with any number of such layers.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def draw_dissimilar(Y: Tensor, label_sets: LabelSets, draws: Tensor) -> Tensor:
    """Draw, for each row, the labels of a training row that has labels and shares none with it.

    Args:
        Y: [N, C] labels.
        label_sets: of all training rows.
        draws: [N] numbers in [0, 1) that decide.

    Returns:
        [N, C]; all 0 where every training row shares a label.
    """
    sets = torch.from_numpy(label_sets.sets.toarray()).to(Y)
    labelled = np.diff(label_sets.sets.indptr) > 0
    sizes = torch.from_numpy(label_sets.sizes * labelled).to(Y)
    ends = (sizes * (Y @ sets.T == 0)).cumsum(dim=1)  # [N, L]
    total = ends[:, -1:]
    drawn = torch.searchsorted(ends, draws.to(Y)[:, None] * total, right=True)[:, 0]
    return sets[drawn.clamp(max=len(sets) - 1)] * (total > 0)


def _normalised(width: int, workers: Workers) -> GlobalBatchNorm:
    layer = GlobalBatchNorm(width)
    layer.workers = workers
    return layer


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return interpolate(images, (side, side), mode="bilinear", antialias=True)
