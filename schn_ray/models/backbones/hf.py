"""``hf:OWNER/NAME``: vision models of transformers; of CLIP and its kin, the image network.

A network's features are its pooled output. Where the weights come without the layers that pool,
they are the class token. Images keep their aspect, as with timm's models.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError, few
from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones.backbone import (
    DEFAULT,
    Architecture,
    Backbone,
    given,
    import_library,
    offline,
    require_whole_patches,
    scaled_sizes,
)
from schn_ray.models.backbones.probe import feature_width
from schn_ray.models.backbones.weights import read_weights
from schn_ray.models.config import BackboneConfig

_CONFIG, _IMAGES = "config.json", "preprocessor_config.json"
_BILINEAR = 2  # Pillow's number
_WHOLE_FROM = 384  # ConvNeXt's images of this size are not cropped


class PooledOutput(nn.Module):
    """A vision model of transformers that returns one vector an image.

    Args:
        model: of transformers.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # else only images of the published size are taken
        resampled = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if resampled else {}

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] -> features [N, d_v]."""
        output = self.model(pixel_values=images, **self._options)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            last: Tensor = output.last_hidden_state
            pooled = last.mean((2, 3)) if last.dim() == 4 else last[:, 0]
        return pooled.flatten(1)


def hf_backbone(config: BackboneConfig) -> Backbone:
    """Build a vision model of transformers.

    Args:
        config: ``weights`` are ``DEFAULT``, or a file; ``config.json`` and
            ``preprocessor_config.json`` are read from its directory if they are there.

    Raises:
        SchnRayError: transformers is missing, no such model, weights that do not fit or do not
            arrive.
    """
    name, weights = config.name.partition(":")[2], given(config.weights)
    transformers = _library(name)
    if weights not in (None, DEFAULT) and not Path(str(weights)).is_file():
        raise SchnRayError(
            f"no weights '{weights}': not a file. Give --weights FILE, --weights {DEFAULT} for "
            "pretrained ones, or --weights none to train from scratch"
        )
    source = name if weights in (None, DEFAULT) else _directory(Path(str(weights)), name)
    with _from_hub(name):
        whole = transformers.AutoConfig.from_pretrained(source)
        images = transformers.AutoImageProcessor.from_pretrained(source)
    vision = getattr(whole, "vision_config", whole)
    model = (
        transformers.AutoModel.from_config(vision)
        if weights is None
        else _pretrained(transformers, name, vision, weights)
    )
    preprocessing = _preprocessing(images, config)
    require_whole_patches(config.name, preprocessing.crop, getattr(vision, "patch_size", None))
    module = PooledOutput(model)
    width = feature_width(module, preprocessing.crop)
    architecture = {
        "width": width,
        "pooler": getattr(model, "pooler", None) is not None,
        "config": _plain(vision),
    }
    return Backbone(module, width, preprocessing, architecture)


def rebuilt_hf(name: str, architecture: Architecture) -> nn.Module:
    """Build the network of a saved backbone again.

    Args:
        name: of the model on the hub.
        architecture: as ``hf_backbone`` returned it.

    Raises:
        SchnRayError: transformers is missing.
    """
    transformers = _library(name)
    model = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(**architecture["config"])
    )
    if not architecture["pooler"]:
        model.pooler = None
    return PooledOutput(model)


def _library(name: str) -> Any:
    return import_library("transformers", "hf", name, "hf")


def _directory(weights: Path, name: str) -> str:
    """Return where the two settings files are: beside the weights, else on the hub."""
    present = [(weights.parent / file).is_file() for file in (_CONFIG, _IMAGES)]
    if any(present) and not all(present):
        missing = (_CONFIG, _IMAGES)[present.index(False)]
        raise SchnRayError(
            f"{weights.parent} has no {missing}: backbone hf:{name} needs {_CONFIG} and {_IMAGES} "
            "beside its weights"
        )
    return str(weights.parent) if all(present) else name


def _pretrained(transformers: Any, name: str, vision: Any, weights: str) -> nn.Module:
    if weights == DEFAULT:
        origin = f"hf:{name}"
        with _from_hub(name):
            model, report = transformers.AutoModel.from_pretrained(
                name, config=vision, output_loading_info=True
            )
    else:
        origin = f"the file {weights}"
        with torch.device("meta"):
            kind = type(transformers.AutoModel.from_config(vision))
        try:
            # it renames the weights of older files
            model, report = kind.from_pretrained(
                None,
                config=vision,
                state_dict=read_weights(Path(weights)),
                output_loading_info=True,
            )
        except RuntimeError as error:
            raise SchnRayError(f"{origin} has weights of another model: {error}") from error
    missing = sorted(report["missing_keys"])
    if any(key.startswith("pooler.") for key in missing):
        model.pooler = None  # it was never trained
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        raise SchnRayError(f"{origin} has weights of another model: missing {few(missing, 3)}")
    return model.float()


def _preprocessing(images: Any, config: BackboneConfig) -> Preprocessing:
    resize, crop = scaled_sizes(*_sizes(images, config.name), config.image_size)
    normalised = getattr(images, "do_normalize", True)
    return Preprocessing(
        resize=resize,
        crop=crop,
        mean=tuple(images.image_mean) if normalised else (0.0, 0.0, 0.0),
        std=tuple(images.image_std) if normalised else (1.0, 1.0, 1.0),
        interpolation="bilinear" if int(images.resample) == _BILINEAR else "bicubic",
        reduced=config.reduced_decoding,
    )


def _sizes(images: Any, backbone: str) -> tuple[int, int]:
    """Return the shorter side to resize to, and the side of the square."""
    size = dict(images.size)
    side = size.get("shortest_edge") or size.get("height")
    if side is None:
        raise SchnRayError(f"backbone {backbone} prepares images in a way of its own: size {size}")
    share = getattr(images, "crop_pct", None)
    if share and side < _WHOLE_FROM:
        return int(side / share), int(side)
    cropped = getattr(images, "do_center_crop", False)
    crop = int(dict(images.crop_size)["height"]) if cropped else int(side)
    return max(int(side), crop), crop


def _plain(vision: Any) -> dict[str, Any]:
    values = json.loads(vision.to_json_string(use_diff=False))
    of_this_machine = ("_name_or_path", "transformers_version")
    return {key: value for key, value in values.items() if key not in of_this_machine}


@contextmanager
def _from_hub(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # hubs raise errors of several libraries
        raise offline(f"hf:{name}", error, f" with {_CONFIG} and {_IMAGES} beside it") from error
