"""Backbones: torchvision's classifiers without their last layer, and a small network of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError, nearest

SMALL = "small"
FROM_SCRATCH = "none"

# auxiliary classifiers of torchvision; in train mode they would add outputs of their own
_AUXILIARY_HEADS = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
_Channels = tuple[float, float, float]
_IMAGENET: tuple[_Channels, _Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def build_backbone(
    name: str, weights: str | None, base_channels: int = 16
) -> tuple[nn.Module, int]:
    """Build a backbone without its classifying layer.

    Args:
        name: ``small``, or any classifier of torchvision, such as ``alexnet``, whose features are
            the 4,096 activations after its last ReLU.
        weights: None or ``"none"`` to train from scratch; a file with a state dict of torchvision
            (.safetensors, or what torch.save wrote); or the name of weights that torchvision
            downloads, such as ``DEFAULT`` or ``IMAGENET1K_V1``.
        base_channels: width of ``small``.

    Returns:
        Images [N, 3, S, S] -> features [N, d_v], and d_v.

    Raises:
        SchnRayError: unknown name or weights, weights that do not fit or do not arrive.
    """
    backbone, head, feature_dim = (
        (SmallBackbone(base_channels), SMALL, 16 * base_channels)
        if name == SMALL
        else _headless(name, initialise=weights in (None, FROM_SCRATCH))
    )
    if weights not in (None, FROM_SCRATCH):
        state, origin = _read_weights(name, weights)
        _load(backbone, state, (head, *_AUXILIARY_HEADS.get(name, ())), origin)
        if name in _AUXILIARY_HEADS:
            # these two were trained on images in [-1, 1]; this switch of torchvision converts ours
            vars(backbone)["transform_input"] = True
    return backbone, feature_dim


def default_image_sizes(name: str) -> tuple[int, int]:
    """Return the image sizes of a backbone: the smallest among torchvision's weights for it.

    Args:
        name: of the backbone, as ``build_backbone`` takes it.

    Returns:
        The short side to resize to and the square to crop, in pixels: (256, 224) for most.

    Raises:
        SchnRayError: unknown name.

    >>> default_image_sizes("alexnet")
    (256, 224)
    """
    if name == SMALL:
        return 32, 32
    views = [w.transforms() for w in _available_weights(name).values()]
    view = min(views, key=lambda v: int(v.crop_size[0]))
    return int(view.resize_size[0]), int(view.crop_size[0])


def normalisation(name: str) -> tuple[_Channels, _Channels]:
    """Return the normalisation of a backbone's input, for pixels in [0, 1].

    Args:
        name: of the backbone, as ``build_backbone`` takes it.

    Returns:
        Mean [3] and standard deviation [3] of the channels red, green and blue.
    """
    return ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if name == SMALL else _IMAGENET


class SmallBackbone(nn.Module):
    """A convolutional network for images of 32 pixels that one CPU core can train from scratch.

    Three stages have 2c, 4c and 8c channels; each halves the image's sides. A linear layer of 16c
    then reads a 4 x 4 grid, which keeps the position of what it sees. With five thousand images it
    learns far faster than a residual network of the same cost, and faster than with group
    normalisation.

    Args:
        channels: c.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        c = channels
        self.stages = nn.Sequential(*_stage(3, 2 * c), *_stage(2 * c, 4 * c), *_stage(4 * c, 8 * c))
        self.grid = nn.AdaptiveAvgPool2d(4)  # an image of 32 pixels has this size already
        # Layer normalisation, so that no feature dies for good: codes that start at zero pull the
        # network's output to zero for a whole iteration
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 8 * c, 16 * c), nn.LayerNorm(16 * c), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] of 8 pixels or more -> features [N, 16c]."""
        # channels last: small convolutions take a third less time on a CPU
        images = images.contiguous(memory_format=torch.channels_last)
        return self.features(self.grid(self.stages(images)))


def _stage(into: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(into, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


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

    available = [SMALL, *models.list_models(module=models)]
    if name not in available:
        hint = nearest(name, available) or f"; available: {', '.join(available)}"
        raise SchnRayError(f"no backbone '{name}': expected 'small' or a torchvision model{hint}")


def _available_weights(name: str) -> Mapping[str, Any]:
    """Return the weights that torchvision offers for a model, by name."""
    from torchvision import models

    _check_name(name)
    return {} if name == SMALL else models.get_model_weights(name).__members__


def _read_weights(name: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """Return a state dict, and a phrase that names its origin for errors."""
    if Path(weights).is_file():
        return _read_file(Path(weights)), f"the file {weights}"
    available = _available_weights(name)
    if weights not in available:
        names = f"{name} has: {', '.join(available)}" if available else f"{name} has none"
        raise SchnRayError(
            f"no weights '{weights}': neither a file nor the name of pretrained weights ({names}). "
            "Give --weights FILE, or --weights none to train from scratch"
        )
    return _download(name, available[weights]), f"torchvision's {weights}"


def _download(name: str, weights: Any) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise SchnRayError(
            f"can't download the pretrained weights of {name} from {weights.url}: {error}. "
            "Without internet access, give --weights FILE (download it on another machine), "
            "or --weights none to train from scratch"
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        state = read(path)
    except Exception as error:  # for a file of another kind, the readers raise nearly anything
        raise SchnRayError(
            f"{path} holds no weights: {error}. Expected a state dict, as .safetensors or as "
            "torch.save wrote it; other pickled objects are not loaded"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SchnRayError(
            f"{path} holds a {type(state).__name__} with values that are not tensors: "
            "expected a state dict (save only model.state_dict())"
        )
    return state


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _load(
    backbone: nn.Module, state: dict[str, Tensor], heads: tuple[str, ...], origin: str
) -> None:
    """Fill the backbone; the state may contain the removed heads, which are skipped."""
    try:
        mismatch = backbone.load_state_dict(_modernised(state, backbone), strict=False)
    except RuntimeError as error:
        raise SchnRayError(
            f"{origin} has weights of other shapes than the model: {error}"
        ) from None
    removed = tuple(f"{head}." for head in heads)
    unknown = [key for key in mismatch.unexpected_keys if not key.startswith(removed)]
    # old files lack the count of batches in batch normalisation; nothing reads it
    missing = [key for key in mismatch.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or unknown:
        raise SchnRayError(
            f"{origin} has weights of another model: missing {_first_keys(missing)}; "
            f"unknown to this model {_first_keys(unknown)}"
        )


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


def _first_keys(keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) or "none"
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown
