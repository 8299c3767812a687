"""``pixels:S``: no network at all; the features are the pixels of a small square image."""

from __future__ import annotations

from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones.backbone import DEFAULT, Backbone, given
from schn_ray.models.config import BackboneConfig

_HALF = (0.5, 0.5, 0.5)


def pixels_backbone(config: BackboneConfig) -> Backbone:
    """Return the pixels of an image, from -1 to 1, as 3 S^2 features.

    Args:
        config: ``name`` is ``pixels:S``, such as ``pixels:8``.

    Raises:
        SchnRayError: S is not a number, or weights or another size are given.
    """
    side = config.name.partition(":")[2]
    if not side.isdecimal() or int(side) < 1:
        raise SchnRayError(f"no backbone '{config.name}': expected a side, such as pixels:8")
    if given(config.weights) not in (None, DEFAULT):
        raise SchnRayError(f"backbone {config.name} has no weights: leave {config.weights} out")
    if config.image_size not in (None, int(side)):
        raise SchnRayError(
            f"backbone {config.name} has images of {side} pixels, not {config.image_size}: "
            f"name pixels:{config.image_size}"
        )
    preprocessing = Preprocessing(
        resize=int(side), crop=int(side), mean=_HALF, std=_HALF, reduced=config.reduced_decoding
    )
    return Backbone(nn.Flatten(), 3 * int(side) ** 2, preprocessing)
