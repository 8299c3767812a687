"""``timm:NAME`` or ``timm:NAME.TAG``: the models of PyTorch Image Models, without classifiers.

Images keep their aspect: the shorter side is resized and the centre is cut out, also for the few
models whose authors squashed images into a square.
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any

from torch import nn

from schn_ray.core.errors import SchnRayError, nearest
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
from schn_ray.models.backbones.weights import State, fill, read_weights
from schn_ray.models.config import BackboneConfig


def timm_backbone(config: BackboneConfig, state: State | None = None) -> Backbone:
    """Build a model of timm without its classifier.

    Args:
        config: ``weights`` are a file with a state dict, or ``DEFAULT`` for those of the tag.
        state: weights in timm's names, in place of those of ``config``.

    Raises:
        SchnRayError: timm is missing, no such model, weights that do not fit or do not arrive.
    """
    name = config.name.partition(":")[2]
    timm = _library(name)
    published = _published(timm, name)
    # only models with a fixed input size take one as an argument
    size = config.image_size if published.fixed_input_size else None
    weights = given(config.weights)
    module = _model(timm, name, size, pretrained=weights == DEFAULT)
    patches = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    require_whole_patches(config.name, config.image_size or published.input_size[-1], patches)
    if state is not None:
        fill(module, state, (), f"the weights of {config.name}")
    elif weights not in (None, DEFAULT):
        _fill_from(module, str(weights))
    view = timm.data.resolve_model_data_config(module)
    preprocessing = _preprocessing(published.input_size[-1], view, config)
    width = feature_width(module, preprocessing.crop)
    # after the weights: the names of weights change
    _separate_activations(module)
    return Backbone(module, width, preprocessing, {"width": width, "image_size": size})


def require_timm(config: BackboneConfig) -> None:
    """Check the name, which takes no time.

    Args:
        config: see ``timm_backbone``.

    Raises:
        SchnRayError: timm is missing, or has no such model or tag.
    """
    name = config.name.partition(":")[2]
    _published(_library(name), name)


def rebuilt_timm(name: str, architecture: Architecture) -> nn.Module:
    """Build the network of a saved backbone again.

    Args:
        name: of the model in timm.
        architecture: as ``timm_backbone`` returned it.

    Raises:
        SchnRayError: timm is missing or has no such model.
    """
    timm = _library(name)
    _published(timm, name)
    module = _model(timm, name, architecture["image_size"], pretrained=False)
    _separate_activations(module)
    return module


def _library(name: str) -> Any:
    return import_library("timm", "timm", name, "timm")


def _published(timm: Any, name: str) -> Any:
    """Return what timm knows of a model's weights and input."""
    if not timm.is_model(name):
        known = [f"timm:{model}" for model in timm.list_models()]
        hint = nearest(f"timm:{name.split('.')[0]}", known) or "; see timm.list_models()"
        raise SchnRayError(f"no backbone 'timm:{name}'{hint}")
    try:
        return timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise SchnRayError(
            f"no backbone 'timm:{name}': no such tag. Tags: {', '.join(tags) or 'none'}"
        ) from error


def _model(timm: Any, name: str, size: int | None, pretrained: bool) -> nn.Module:
    sized = {} if size is None else {"img_size": size}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
    except Exception as error:  # hubs raise errors of several libraries
        if pretrained:
            raise offline(f"timm:{name}", error) from error
        raise SchnRayError(f"can't build timm:{name} for images of {size}: {error}") from error


def _fill_from(module: nn.Module, weights: str) -> None:
    if not Path(weights).is_file():
        raise SchnRayError(
            f"no weights '{weights}': not a file. Give --weights FILE, --weights {DEFAULT} for the "
            "pretrained ones of the name's tag, or --weights none to train from scratch"
        )
    state = _converted(read_weights(Path(weights)), module)
    described: Any = module.pretrained_cfg
    classifier = described.get("classifier") or ()
    removed = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    fill(module, state, removed, f"the file {weights}")


def _converted(state: State, module: nn.Module) -> State:
    """Rename old weights and resample position embeddings, as timm does to its own files."""
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    logging.getLogger("timm").setLevel(logging.WARNING)
    return dict(convert(state, module))


def _preprocessing(published: int, view: dict[str, Any], config: BackboneConfig) -> Preprocessing:
    resize = math.floor(published / view["crop_pct"])
    resize, crop = scaled_sizes(resize, published, config.image_size)
    return Preprocessing(
        resize=resize,
        crop=crop,
        mean=tuple(view["mean"]),
        std=tuple(view["std"]),
        interpolation="bilinear" if view["interpolation"] == "bilinear" else "bicubic",
        reduced=config.reduced_decoding,
    )


def _separate_activations(module: nn.Module) -> None:
    """Split timm's normalisation with activation in two, so that workers can share the former."""
    from timm.layers import BatchNormAct2d

    child: Any
    for name, child in module.named_children():
        if type(child) is BatchNormAct2d:
            setattr(module, name, nn.Sequential(_plain(child), child.drop, child.act))
        else:
            _separate_activations(child)


def _plain(old: Any) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(old.num_features, old.eps, old.momentum)
    norm.weight, norm.bias = old.weight, old.bias
    norm.running_mean, norm.running_var = old.running_mean, old.running_var
    norm.num_batches_tracked = old.num_batches_tracked
    return norm.train(old.training)
