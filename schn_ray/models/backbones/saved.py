"""A backbone in a directory: weights, what builds it, and their SHA-256.

Features can only be used with the backbone that computed them. So a directory of features has it,
and its fingerprint says whether two are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from schn_ray.core.atomic_files import PARTIAL, write_atomically, writing
from schn_ray.core.documents import parse_yaml
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Section, validated
from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.build import build_backbone, rebuild_backbone
from schn_ray.models.config import BackboneConfig

WEIGHTS, SPEC = "weights.safetensors", "backbone.yaml"


class BackboneSpec(Section):
    """What a saved backbone is built from.

    Attributes:
        name: of the backbone.
        base_channels: width of ``small``.
        width: d, of its features.
        preprocessing: from an image to its input.
        architecture: see ``Backbone``.
    """

    name: str
    base_channels: int
    width: int
    preprocessing: Preprocessing | None
    architecture: dict[str, Any] | None = None

    def config(self) -> BackboneConfig:
        """Return settings that name the backbone."""
        return BackboneConfig(name=self.name, base_channels=self.base_channels, frozen=True)


def build_fixed_backbone(config: BackboneConfig) -> Backbone:
    """Build a backbone that is used as it is, in evaluation mode; the same in every process.

    Args:
        config: of the backbone. Random weights are drawn from a fixed seed.

    Raises:
        SchnRayError: see ``build_backbone``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(config)
    backbone.module.eval()
    return backbone


def backbone_fingerprint(backbone: Backbone, config: BackboneConfig) -> str:
    """Return a SHA-256 over weights and preprocessing: equal ones give equal features.

    Args:
        backbone: the network.
        config: that it was built from.
    """
    digest = hashlib.sha256(json.dumps(_spec(backbone, config).model_dump(mode="json")).encode())
    for name, tensor in sorted(backbone.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_backbone(backbone: Backbone, config: BackboneConfig, path: Path) -> None:
    """Write a backbone into a directory.

    Args:
        backbone: the network.
        config: that it was built from.
        path: the directory; created where it is missing.
    """
    write_weights(backbone.module, path / WEIGHTS)
    spec = yaml.safe_dump(_spec(backbone, config).model_dump(mode="json"), sort_keys=False)
    write_atomically(path / SPEC, spec.encode())


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a network's parameters and buffers as a safetensors file, atomically.

    Args:
        network: on any device.
        path: of the file; its folder is created where it is missing.

    Raises:
        CannotWrite: the disk is full, say.
    """
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    partial_path = path.with_name(path.name + PARTIAL)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(state, partial_path)
        except SafetensorError as error:  # it has the operating system's number in its text only
            partial_path.unlink(missing_ok=True)
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        partial_path.rename(path)


def load_backbone(path: Path) -> tuple[Backbone, BackboneConfig]:
    """Read what ``save_backbone`` wrote; its files should have been compared with their SHA-256.

    Args:
        path: the directory.

    Returns:
        The network in evaluation mode, and a config that names it.

    Raises:
        SchnRayError: not a saved backbone.
    """
    spec = read_backbone_spec(path)
    state = load_file(path / WEIGHTS)
    module = rebuild_backbone(spec.name, spec.base_channels, spec.architecture)
    module.load_state_dict(state)
    backbone = Backbone(module.eval(), spec.width, spec.preprocessing, spec.architecture)
    return backbone, spec.config()


def read_backbone_spec(path: Path) -> BackboneSpec:
    """Read what a saved backbone is built from, and nothing else of it.

    Args:
        path: the directory.

    Raises:
        SchnRayError: not a saved backbone.
    """
    try:
        text = (path / SPEC).read_bytes()
    except OSError as error:
        raise SchnRayError(f"{path} has no saved backbone: {error.strerror}") from error
    return validated(BackboneSpec, parse_yaml(text, str(path / SPEC)))


def _spec(backbone: Backbone, config: BackboneConfig) -> BackboneSpec:
    return BackboneSpec(
        name=config.name,
        base_channels=config.base_channels,
        width=backbone.width,
        preprocessing=backbone.preprocessing,
        architecture=backbone.architecture,
    )
