"""``open_clip:MODEL`` or ``open_clip:MODEL/TAG``: the image networks of open_clip.

Images keep their aspect, as with timm's models.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
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
)
from schn_ray.models.backbones.probe import feature_width
from schn_ray.models.backbones.weights import State, fill, read_weights
from schn_ray.models.config import BackboneConfig

_VISUAL = "visual."


def open_clip_backbone(config: BackboneConfig) -> Backbone:
    """Build the image network of a model of open_clip.

    Args:
        config: ``weights`` are ``DEFAULT`` for those of the tag, or a file with the state dict of
            the whole model or of its image network.

    Raises:
        SchnRayError: open_clip is missing, no such model or tag, weights that do not fit or do
            not arrive.
    """
    name, _, tag = config.name.partition(":")[2].partition("/")
    weights = given(config.weights)
    library = _library(config.name.partition(":")[2])
    settings = _settings(library, name)
    published = _published(library, name, tag) if tag or weights == DEFAULT else {}
    vision = settings["vision_cfg"] | {"timm_model_pretrained": False, "output_tokens": False}
    if config.image_size is not None:
        vision["image_size"] = config.image_size
    require_whole_patches(config.name, vision["image_size"], vision.get("patch_size"))
    architecture = {
        "embed_dim": settings["embed_dim"],
        "quick_gelu": bool(published.get("quick_gelu", settings.get("quick_gelu", False))),
        "vision": vision,
    }
    module = _tower(library, architecture)
    if weights is not None:
        state, origin = _read(library, config.name, published, weights)
        state = {key.removeprefix(_VISUAL): v for key, v in state.items() if _is_visual(key, state)}
        fill(module, _resampled(library, state, module), (), origin)
    preprocessing = _preprocessing(library, vision["image_size"], published, config)
    width = feature_width(module, preprocessing.crop)
    return Backbone(module, width, preprocessing, {"width": width, **architecture})


def rebuilt_open_clip(name: str, architecture: Architecture) -> nn.Module:
    """Build the network of a saved backbone again.

    Args:
        name: of the model in open_clip.
        architecture: as ``open_clip_backbone`` returned it.

    Raises:
        SchnRayError: open_clip is missing.
    """
    return _tower(_library(name), architecture)


def _library(name: str) -> Any:
    return import_library("open_clip", "open_clip", name, "open-clip")


def _settings(library: Any, name: str) -> dict[str, Any]:
    known = library.list_models()
    if name not in known:
        hint = (
            nearest(f"open_clip:{name}", [f"open_clip:{model}" for model in known])
            or "; see open_clip.list_models()"
        )
        raise SchnRayError(f"no backbone 'open_clip:{name}'{hint}")
    return dict(library.get_model_config(name))


def _published(library: Any, name: str, tag: str) -> dict[str, Any]:
    """Return what open_clip knows of a model's weights."""
    tags = library.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise SchnRayError(
            f"no pretrained weights '{tag}' of open_clip:{name}: expected "
            f"open_clip:{name}/TAG, with one of the tags {', '.join(tags) or '(it has none)'}"
        )
    return dict(library.pretrained.get_pretrained_cfg(name, tag))


def _tower(library: Any, architecture: Architecture) -> nn.Module:
    # the public way builds the text network too, some of which ask a hub for their settings
    return library.model._build_vision_tower(
        architecture["embed_dim"], dict(architecture["vision"]), architecture["quick_gelu"]
    )


def _read(library: Any, name: str, published: dict[str, Any], weights: str) -> tuple[State, str]:
    """Return a state dict, and a phrase that names its origin for errors."""
    if weights != DEFAULT:
        if not Path(weights).is_file():
            raise SchnRayError(
                f"no weights '{weights}': not a file. Give --weights FILE, --weights {DEFAULT} for "
                "those of the name's tag, or --weights none to train from scratch"
            )
        return read_weights(Path(weights)), f"the file {weights}"
    try:
        path = library.pretrained.download_pretrained(published)
        return dict(library.load_state_dict(path)), f"the weights of {name}"
    except Exception as error:  # hubs raise errors of several libraries
        raise offline(name, error) from error


def _is_visual(key: str, state: State) -> bool:
    """Whether a weight is the image network's: by its prefix, if any weight has that."""
    return key.startswith(_VISUAL) or not any(other.startswith(_VISUAL) for other in state)


def _resampled(library: Any, state: State, module: nn.Module) -> State:
    """Resample the position embeddings to the network's image size."""
    whole = {f"{_VISUAL}{key}": value for key, value in state.items()}
    library.model.resize_pos_embed(whole, SimpleNamespace(visual=module))
    return {key.removeprefix(_VISUAL): value for key, value in whole.items()}


def _preprocessing(
    library: Any, size: int, published: dict[str, Any], config: BackboneConfig
) -> Preprocessing:
    view = library.transform.PreprocessCfg()
    interpolation = published.get("interpolation", view.interpolation)
    return Preprocessing(
        resize=size,
        crop=size,
        mean=tuple(published.get("mean", view.mean)),
        std=tuple(published.get("std", view.std)),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        reduced=config.reduced_decoding,
    )
