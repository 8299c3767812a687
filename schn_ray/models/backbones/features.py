"""``features:D``: no network at all; what comes in are D features of each row."""

from __future__ import annotations

from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.backbone import Backbone, given
from schn_ray.models.config import BackboneConfig


def identity_backbone(config: BackboneConfig) -> Backbone:
    """Return the identity on vectors.

    Args:
        config: ``name`` is ``features:D``, such as ``features:512``.

    Raises:
        SchnRayError: D is not a number, or weights are given.
    """
    width = config.name.partition(":")[2]
    if not width.isdecimal() or int(width) < 1:
        raise SchnRayError(
            f"no backbone '{config.name}': expected the number of features, such as features:512"
        )
    if given(config.weights) is not None:
        raise SchnRayError(
            f"backbone {config.name} has no weights: leave --weights {config.weights} out"
        )
    return Backbone(nn.Identity(), int(width), None)
