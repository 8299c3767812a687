"""``torchvision:NAME`` or its bare NAME: torchvision's classifiers without their last layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones.backbone import Backbone, given, scaled_sizes
from schn_ray.models.backbones.weights import State, fill, read_weights
from schn_ray.models.config import BackboneConfig

# auxiliary classifiers; in train mode they would add outputs of their own
_AUXILIARY_HEADS = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
_OF_ONE_SIZE = ("vit_", "maxvit_")  # they hold positions of an image of the published size
# of all torchvision's weights; Preprocessing's defaults
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_backbone(config: BackboneConfig) -> Backbone:
    """Build a classifier of torchvision without its last layer.

    Args:
        config: ``name`` is bare, such as ``alexnet``, whose features are the 4,096 activations
            after its last ReLU; ``weights`` are a file with a state dict of torchvision, or a name
            such as ``DEFAULT`` or ``IMAGENET1K_V1``.

    Raises:
        SchnRayError: unknown name or weights, weights that do not fit or do not arrive.
    """
    name, weights = config.name, given(config.weights)
    require_torchvision(config)
    module, head, width = _headless(name, initialise=weights is None)
    if weights is not None:
        state, origin = _read(name, weights)
        removed = (head, *_AUXILIARY_HEADS.get(name, ()))
        fill(module, _modernised(state, module), removed, origin)
        if name in _AUXILIARY_HEADS:
            # these two were trained on images in [-1, 1]; this switch of torchvision converts ours
            vars(module)["transform_input"] = True
    return Backbone(module, width, torchvision_preprocessing(config))


def require_torchvision(config: BackboneConfig) -> None:
    """Check name, weights and image size, which takes no time.

    Args:
        config: see ``torchvision_backbone``.

    Raises:
        SchnRayError: torchvision has no such model or weights, or the model takes another size.
    """
    name, weights = config.name, given(config.weights)
    _check_name(name)
    if weights is not None and not Path(weights).is_file():
        _weights_named(name, weights)
    published = _published_sizes(name)[1]
    if name.startswith(_OF_ONE_SIZE) and config.image_size not in (None, published):
        raise SchnRayError(
            f"backbone {name} takes images of {published} pixels, and backbone.image_size is "
            f"{config.image_size} (by --set, the preset or the method): add "
            f"--set backbone.image_size={published}, or use another backbone"
        )


def torchvision_preprocessing(config: BackboneConfig) -> Preprocessing:
    """Return how images are prepared: for the smallest size among torchvision's weights.

    Args:
        config: ``image_size`` overrides that size.

    Raises:
        SchnRayError: unknown name.

    Example:
        >>> torchvision_preprocessing(BackboneConfig(name="alexnet")).crop
        224
    """
    resize, crop = scaled_sizes(*_published_sizes(config.name), config.image_size)
    return Preprocessing(
        resize=resize, crop=crop, mean=_MEAN, std=_STD, reduced=config.reduced_decoding
    )


def _published_sizes(name: str) -> tuple[int, int]:
    """Return the smallest sizes among the weights for a model: (256, 224) for most."""
    views = [w.transforms() for w in _available_weights(name).values()]
    view = min(views, key=lambda v: int(v.crop_size[0]))
    return int(view.resize_size[0]), int(view.crop_size[0])


def _headless(name: str, initialise: bool) -> tuple[nn.Module, str, int]:
    """Return torchvision's model without its last layer, that layer's name, its input's width."""
    from torchvision import models

    _check_name(name)
    # these two take seconds to initialise
    plain = {"aux_logits": False, "init_weights": initialise} if name in _AUXILIARY_HEADS else {}
    model = models.get_model(name, weights=None, **plain)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    head, layer = layers[-1]
    model.set_submodule(head, nn.Identity())
    # the last layer of squeezenet is a convolution
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    return model, head, width


def _check_name(name: str) -> None:
    from torchvision import models

    available = ["small", "efficientnet_lite0", *models.list_models(module=models)]
    if name not in available:
        hint = nearest(name, available) or f"; available: {', '.join(available)}"
        raise SchnRayError(
            f"no backbone '{name}': expected 'small', 'efficientnet_lite0', a torchvision model, "
            f"or a name with a prefix (timm:, hf:, open_clip:, features:){hint}"
        )


def _available_weights(name: str) -> Mapping[str, Any]:
    """Return the weights that torchvision offers for a model, by name."""
    from torchvision import models

    _check_name(name)
    return models.get_model_weights(name).__members__


def _read(name: str, weights: str) -> tuple[State, str]:
    """Return a state dict, and a phrase that names its origin for errors."""
    if Path(weights).is_file():
        return read_weights(Path(weights)), f"the file {weights}"
    return _download(name, _weights_named(name, weights)), f"torchvision's {weights}"


def _weights_named(name: str, weights: str) -> Any:
    available = _available_weights(name)
    if weights not in available:
        raise SchnRayError(
            f"no weights '{weights}': neither a file nor the name of pretrained weights ({name} "
            f"has: {', '.join(available)}). Give --weights FILE, or --weights none to train from "
            "scratch"
        )
    return available[weights]


def _download(name: str, weights: Any) -> State:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise SchnRayError(
            f"can't download the pretrained weights of {name} from {weights.url}: {error}. "
            "Without internet access, give --weights FILE (download it on another machine), "
            "or --weights none to train from scratch"
        ) from error


def _modernised(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    # torchvision's DenseNet files have older names than its DenseNet: norm.1 is norm1 now
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    if any(old.search(key) for key in state):
        state = {old.sub(r"\1\2", key): value for key, value in state.items()}
    if hasattr(state, "_metadata"):
        return state
    # MNASNet reads a version from the state dict's metadata, which safetensors files lack
    versioned = backbone.state_dict()
    versioned.clear()
    versioned.update(state)
    return versioned
