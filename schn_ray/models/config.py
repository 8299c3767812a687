"""Settings of the network and of the precision it computes in."""

from __future__ import annotations

from typing import Literal

from schn_ray.core.settings import Count, Section, Share

PrecisionName = Literal["auto", "float32", "tf32", "bf16"]


class NetworkConfig(Section):
    """Sizes and variants of the networks; defaults as published."""

    backbone: str = "alexnet"
    weights: str | None = None
    image_size: Count | None = None
    reduced_decoding: bool = True
    base_channels: Count = 16
    freeze_batch_norm: bool = False
    semantic_dim: Count = 512
    latent_dim: Count = 1024
    latent_dropout: Share = 0.5
    latent_activation: Literal["sigmoid", "tanh"] = "sigmoid"
    label_graph: Literal["sum", "mean"] = "sum"
    cycle: Literal["schn", "schn-mmasia"] = "schn"
