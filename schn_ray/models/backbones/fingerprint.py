"""What identifies the features of a backbone: its weights, and how images are prepared for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from schn_ray.data.images import Preprocessing


def backbone_fingerprint(
    state: Mapping[str, Tensor], name: str, preprocessing: Preprocessing | None
) -> str:
    """Return the SHA-256 over a backbone; equal ones give equal features.

    Args:
        state: the module's state dict, on any device.
        name: of the backbone.
        preprocessing: of its images; None for vectors.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> backbone_fingerprint({}, "features:512", None)[:8]
        'ef68d1dc'
    """
    prepared = "" if preprocessing is None else preprocessing.model_dump_json()
    digest = hashlib.sha256(f"{name}\n{prepared}\n".encode())
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue  # counts training steps; no feature depends on it
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
