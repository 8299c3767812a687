"""Weights in files: read a state dict safely, and fill a network with it, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError, few

State = dict[str, Tensor]


def read_weights(path: Path) -> State:
    """Read a state dict.

    Args:
        path: a .safetensors file, or what ``torch.save`` wrote.

    Raises:
        SchnRayError: the file holds something else.
    """
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


def fill(network: nn.Module, state: State, removed: tuple[str, ...], origin: str) -> None:
    """Fill a network; every weight of it must be in the state dict, and every key must be known.

    Args:
        network: changed in place.
        state: by name of the weight.
        removed: layers that the network lacks; the state dict may have them.
        origin: of the state dict, a phrase for errors.

    Raises:
        SchnRayError: the weights do not fit.
    """
    try:
        mismatch = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise SchnRayError(
            f"{origin} has weights of other shapes than the model: {error}"
        ) from None
    prefixes = tuple(f"{layer}." for layer in removed)
    unknown = [key for key in mismatch.unexpected_keys if not key.startswith(prefixes)]
    # old files lack the count of batches in batch normalisation; nothing reads it
    missing = [key for key in mismatch.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or unknown:
        raise SchnRayError(
            f"{origin} has weights of another model: missing {few(missing, 3) or 'none'}; "
            f"unknown to this model {few(unknown, 3) or 'none'}"
        )
