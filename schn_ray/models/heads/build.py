"""From a head's description to its layers."""

from __future__ import annotations

from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.blocks import BlocksHead
from schn_ray.models.heads.fitted import FittedHead
from schn_ray.models.heads.linear import LinearHead
from schn_ray.models.heads.mlp import MlpHead
from schn_ray.models.heads.normalised import NormalisedHead
from schn_ray.models.heads.recurrent import RecurrentHead
from schn_ray.models.heads.words import WordsHead


def build_head(spec: HeadSpec, width: int, bits: int) -> nn.Module:
    """Build a head with random weights; those of ``fitted`` are 0.

    Args:
        spec: its kind and sizes.
        width: d, width of the features.
        bits: K.

    Returns:
        Features [N, d] -> h [N, K].

    Raises:
        SchnRayError: a size that its kind needs is missing.

    Example:
        >>> build_head(HeadSpec(kind="mlp", hidden=64), width=512, bits=32)
        MlpHead(
          (hidden): Linear(in_features=512, out_features=64, bias=True)
          (linear): Linear(in_features=64, out_features=32, bias=True)
        )
    """
    if spec.batch_norm:
        plain = spec.model_copy(update={"batch_norm": False})
        return NormalisedHead(build_head(plain, width, bits), bits)
    if spec.layer_norm:
        plain = spec.model_copy(update={"layer_norm": False})
        norm = nn.LayerNorm(bits, elementwise_affine=False)
        return nn.Sequential(build_head(plain, width, bits), norm)
    if spec.kind == "fitted":
        return FittedHead(spec, width, bits)
    if spec.kind == "mlp":
        return MlpHead(width, _size(spec, "hidden"), bits)
    if spec.kind == "blocks":
        return BlocksHead(width, bits, _size(spec, "block"))
    if spec.kind == "words":
        return WordsHead(width, _size(spec, "hidden"), bits, _size(spec, "block"))
    if spec.kind == "recurrent":
        return RecurrentHead(width, _size(spec, "hidden"), bits, spec.shared)
    return LinearHead(width, bits)


def _size(spec: HeadSpec, name: str) -> int:
    value: int | None = getattr(spec, name)
    if value is None:
        raise SchnRayError(f"a head of the kind '{spec.kind}' needs '{name}'")
    return value
