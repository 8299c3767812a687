"""What every kind of backbone gives, and the two lines that all kinds share."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import Preprocessing

DEFAULT = "DEFAULT"  # pretrained weights, as the library offers them
FROM_SCRATCH = "none"

Architecture = dict[str, Any]


@dataclass(frozen=True)
class Backbone:
    """A network without its classifying layer, and how images are prepared for it.

    Attributes:
        module: images [N, 3, S, S], or vectors [N, d] -> features [N, width].
        width: d_v, width of the features.
        preprocessing: of images; None for a backbone that takes vectors.
        architecture: what builds the module again without asking a hub; plain values, as YAML
            holds them. None if the backbone's name alone does.
    """

    module: nn.Module
    width: int
    preprocessing: Preprocessing | None
    architecture: Architecture | None = None


def given(weights: str | None) -> str | None:
    """Return the weights to load, or None to begin with random ones.

    Args:
        weights: of a config.

    Example:
        >>> given("none"), given("DEFAULT")
        (None, 'DEFAULT')
    """
    return None if weights == FROM_SCRATCH else weights


def scaled_sizes(resize: int, crop: int, image_size: int | None) -> tuple[int, int]:
    """Return the sizes of a view, for the image size of a config.

    Args:
        resize: shorter side before the crop, as published.
        crop: side of the square, as published.
        image_size: side of the square in place of ``crop``; None leaves both as they are.

    Example:
        >>> scaled_sizes(256, 224, 112)
        (128, 112)
    """
    if image_size is None:
        return resize, crop
    return round(resize * image_size / crop), image_size


def import_library(module: str, prefix: str, name: str, extra: str) -> ModuleType:
    """Import a library that only some backbones need.

    Args:
        module: the library's module.
        prefix: of the backbone's name, for the error; empty for a bare name.
        name: of the backbone after the prefix, for the error.
        extra: of this package, which installs the library.

    Raises:
        SchnRayError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        whole = f"{prefix}:{name}" if prefix else name
        raise SchnRayError(
            f"backbone {whole}: needs {error.name}: pip install 'schn-ray[{extra}]'"
        ) from error


def offline(backbone: str, error: Exception, files: str = "") -> SchnRayError:
    """Return the error for weights or settings that do not arrive.

    Args:
        backbone: its whole name.
        error: of the library.
        files: what must be beside the weights' file.
    """
    reason = str(error).rstrip(". ")
    return SchnRayError(
        f"can't download backbone {backbone}: {reason}. Without internet access, give "
        f"--weights FILE{files} (download it on another machine)"
    )


def require_whole_patches(backbone: str, size: int, patch: Any) -> None:
    """Check that a network sees the whole image: one that cuts it into patches drops the rest.

    Args:
        backbone: its whole name.
        size: side of the image.
        patch: side of a patch, or both sides; None for a network without patches.

    Raises:
        SchnRayError: the size is not a multiple of the patch's.
    """
    side = patch[0] if isinstance(patch, tuple | list) else patch
    if side and size % side:
        raise SchnRayError(
            f"backbone {backbone} cuts images into patches of {side} pixels: backbone.image_size "
            f"{size} is not a multiple of it; {size - size % side} and {size - size % side + side} "
            "are"
        )
