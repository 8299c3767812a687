"""The image network: a backbone that sees and a hash layer that codes; all that is released."""

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

# heads that torchvision trains beside the last layer; their outputs would ride along in train mode
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
            # these two learnt from images in [-1, 1]; torchvision's switch turns ours into them
            vars(backbone)["transform_input"] = True
    return backbone, feature_dim


def default_image_sizes(name: str) -> tuple[int, int]:
    """Return the short side to resize to and the square to crop, in pixels, for a backbone.

    The smallest that torchvision's weights of this name were made for: (256, 224) for most.
    """
    if name == SMALL:
        return 32, 32
    views = [w.transforms() for w in _known_weights(name).values()]
    view = min(views, key=lambda v: int(v.crop_size[0]))
    return int(view.resize_size[0]), int(view.crop_size[0])


def normalisation(name: str) -> tuple[_Channels, _Channels]:
    """Return mean and standard deviation [3] of a backbone's input, for pixels in [0, 1]."""
    return ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if name == SMALL else _IMAGENET


class SmallBackbone(nn.Module):
    """A convolutional network for images of 32 pixels that one CPU core can train from scratch.

    Three stages of 2c, 4c and 8c channels, each ending at half the size, then a layer of 16c that
    reads a 4 x 4 grid, so that it knows what is where. Five thousand images teach it far faster
    than a residual network of the same cost, or than one that normalises groups, not batches.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        c = channels
        self.stages = nn.Sequential(*_stage(3, 2 * c), *_stage(2 * c, 4 * c), *_stage(4 * c, 8 * c))
        self.grid = nn.AdaptiveAvgPool2d(4)  # leaves images of 32 pixels as they are
        # normalised, so that no target can silence every feature for good: codes that start at zero
        # pull the network's output to zero for a whole iteration
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 8 * c, 16 * c), nn.LayerNorm(16 * c), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] of 8 pixels or more -> features [N, 16c]."""
        # channels last takes a third off the time of small convolutions on a CPU
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
    """Return torchvision's model without its last layer, where that was, its input's width."""
    from torchvision import models

    _check_name(name)
    # drawing these two's weights takes seconds
    plain = {"aux_logits": False, "init_weights": initialise} if name in _AUXILIARY_HEADS else {}
    model = models.get_model(name, weights=None, **plain)
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    head, layer = layers[-1]
    model.set_submodule(head, nn.Identity())
    # squeezenet's is a convolution
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    return model, head, width


def _check_name(name: str) -> None:
    from torchvision import models

    known = [SMALL, *models.list_models(module=models)]
    if name not in known:
        hint = nearest(name, known) or f"; there are: {', '.join(known)}"
        raise SchnRayError(f"no backbone '{name}': wanted 'small' or a torchvision model{hint}")


def _known_weights(name: str) -> Mapping[str, Any]:
    """Return the weights that torchvision offers for a model, by name."""
    from torchvision import models

    _check_name(name)
    return {} if name == SMALL else models.get_model_weights(name).__members__


def _read_weights(name: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """Return a state dict, and in words where it came from."""
    if Path(weights).is_file():
        return _read_file(Path(weights)), f"the file {weights}"
    known = _known_weights(name)
    if weights not in known:
        names = f" of {name}'s: {', '.join(known)}" if known else f": {name} has none of its own"
        raise SchnRayError(
            f"no weights '{weights}': no such file, and not a name{names}. "
            "Give --weights FILE, or --weights none to train from scratch"
        )
    return _download(name, known[weights]), f"torchvision's {weights}"


def _download(name: str, weights: Any) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise SchnRayError(
            f"can't download the pretrained weights of {name} from {weights.url}: {error}. "
            "Without a network, give --weights FILE (download it elsewhere), "
            "or --weights none to train from scratch"
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    try:
        state = read(path)
    except Exception as error:  # the readers raise nearly anything for a file that is not theirs
        raise SchnRayError(
            f"{path} holds no weights: {error}. Wanted a state dict, as .safetensors "
            "or as torch.save wrote it; nothing else is unpickled"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise SchnRayError(
            f"{path} holds a {type(state).__name__} of other things than tensors: "
            "wanted a state dict (save model.state_dict() alone)"
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
    """Fill the backbone; weights of layers that were removed may be there or not."""
    try:
        found = backbone.load_state_dict(_modernised(state, backbone), strict=False)
    except RuntimeError as error:
        raise SchnRayError(
            f"{origin} has weights of other shapes than the model: {error}"
        ) from None
    removed = tuple(f"{head}." for head in heads)
    unknown = [key for key in found.unexpected_keys if not key.startswith(removed)]
    # batch norm counts its batches, and reads the count nowhere: old files have none
    missing = [key for key in found.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or unknown:
        raise SchnRayError(
            f"{origin} has weights of another model: missing {_some(missing)}; "
            f"without a place {_some(unknown)}"
        )


def _modernised(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    # torchvision's DenseNet files are older than its DenseNet: norm.1 is norm1 now
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    if any(old.search(key) for key in state):
        state = {old.sub(r"\1\2", key): value for key, value in state.items()}
    if hasattr(state, "_metadata"):
        return state
    # MNASNet asks which version of it the weights are for, and safetensors can't say
    versioned = backbone.state_dict()
    versioned.clear()
    versioned.update(state)
    return versioned


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) or "none"
    return f"{shown} and {len(keys) - 3} more" if len(keys) > 3 else shown
