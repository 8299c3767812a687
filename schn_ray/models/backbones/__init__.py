"""Backbones by prefix: ``small``, torchvision's, timm's, transformers', open_clip's, vectors."""

from __future__ import annotations

from torch import nn

from schn_ray.models.backbones import build
from schn_ray.models.config import BackboneConfig


def _module_and_width(
    name: str, weights: str | None, base_channels: int = 16
) -> tuple[nn.Module, int]:
    config = BackboneConfig(name=name, weights=weights, base_channels=base_channels)
    backbone = build.build_backbone(config)
    return backbone.module, backbone.width


build_backbone = _module_and_width  # for callers that do not have a BackboneConfig yet
