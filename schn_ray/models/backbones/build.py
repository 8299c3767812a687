"""From a backbone's name to the network: the table of all kinds, by prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.backbone import Architecture, Backbone
from schn_ray.models.backbones.efficientnet_lite0 import (
    EFFICIENTNET_LITE0,
    efficientnet_lite0_backbone,
)
from schn_ray.models.backbones.features import identity_backbone
from schn_ray.models.backbones.hf import hf_backbone, rebuilt_hf
from schn_ray.models.backbones.open_clip import open_clip_backbone, rebuilt_open_clip
from schn_ray.models.backbones.pixels import pixels_backbone
from schn_ray.models.backbones.small import SMALL, small_backbone
from schn_ray.models.backbones.timm import rebuilt_timm, require_timm, timm_backbone
from schn_ray.models.backbones.torchvision import require_torchvision, torchvision_backbone
from schn_ray.models.config import BackboneConfig

_KINDS: Mapping[str, Callable[[BackboneConfig], Backbone]] = {
    "timm": timm_backbone,
    "hf": hf_backbone,
    "open_clip": open_clip_backbone,
    "features": identity_backbone,
    "pixels": pixels_backbone,
}
_REBUILT: Mapping[str, Callable[[str, Architecture], nn.Module]] = {
    "timm": rebuilt_timm,
    "hf": rebuilt_hf,
    "open_clip": rebuilt_open_clip,
}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build a backbone without its classifying layer, with its weights.

    Args:
        config: its ``name`` is ``small``, ``efficientnet_lite0``, a bare name of torchvision, or
            has a prefix: ``timm:``, ``hf:``, ``open_clip:``, ``features:`` or ``pixels:``.

    Returns:
        The network, the width of its features, and how images are prepared for it.

    Raises:
        SchnRayError: unknown name or weights, weights that do not fit or do not arrive, or a
            library that is not installed.

    Example:
        >>> build_backbone(BackboneConfig(name="features:512")).width
        512
    """
    if config.name == SMALL:
        return small_backbone(config)
    if config.name == EFFICIENTNET_LITE0:
        return efficientnet_lite0_backbone(config)
    prefix, colon, _ = config.name.partition(":")
    if not colon:
        return torchvision_backbone(config)
    if prefix not in _KINDS:
        raise _unknown_prefix(config.name)
    return _KINDS[prefix](config)


def require_backbone(config: BackboneConfig) -> None:
    """Check a backbone before any work: what its name and settings alone say.

    Names on a hub and the content of files show when it is built.

    Args:
        config: see ``build_backbone``.

    Raises:
        SchnRayError: unknown name, or a library that is not installed.
    """
    prefix, colon, _ = config.name.partition(":")
    if config.name in (SMALL, EFFICIENTNET_LITE0):
        return
    if not colon:
        require_torchvision(config)
    elif prefix == "timm":
        require_timm(config)
    elif prefix not in _KINDS:
        raise _unknown_prefix(config.name)


def _unknown_prefix(name: str) -> SchnRayError:
    known = ", ".join(f"{kind}:" for kind in ("torchvision", *_KINDS))
    return SchnRayError(f"no backbone '{name}': expected one of the prefixes {known}")


def rebuild_backbone(
    name: str, base_channels: int, architecture: Mapping[str, Any] | None
) -> nn.Module:
    """Build the network of a saved backbone again, without its weights and without a hub.

    Args:
        name: of the backbone.
        base_channels: width of ``small``.
        architecture: as ``build_backbone`` returned it.

    Raises:
        SchnRayError: unknown name, or a library that is not installed.
    """
    if architecture is None:
        return build_backbone(BackboneConfig(name=name, base_channels=base_channels)).module
    prefix, _, rest = name.partition(":")
    if prefix not in _REBUILT:
        raise SchnRayError(f"backbone {name} has an architecture that this version cannot read")
    return _REBUILT[prefix](rest, dict(architecture))
