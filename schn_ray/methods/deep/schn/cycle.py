"""The cycle: networks that reconstruct image and semantic codes, and their discriminators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from schn_ray.methods.deep.schn.attention import BatchAttention
from schn_ray.methods.deep.schn.latent import BatchFeatures


class Reconstruction(nn.Module):
    """Attention over the batch, then an MLP to a code in [-1, 1].

    Args:
        query_dim: d_q, width of queries and keys.
        value_dim: d_v, width of values.
        bits: K.
    """

    def __init__(self, query_dim: int, value_dim: int, bits: int) -> None:
        super().__init__()
        self.attention = BatchAttention(query_dim, query_dim, value_dim)
        self.to_code = _mlp(query_dim, bits)

    def forward(self, query: Tensor, value: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """Own rows' query (and key) [b, d_q] and value [b, d_v] -> R [b, K]."""
        return torch.tanh(self.to_code(self.attention(query, query, value, gather)))


class LatentQueryCycle(nn.Module):
    """The cycle of ``schn``: queries are latent, values the *other* modality's features.

    Args:
        visual_dim: d_v.
        semantic_dim: d_s.
        latent_dim: d_z.
        bits: K.
    """

    def __init__(self, visual_dim: int, semantic_dim: int, latent_dim: int, bits: int) -> None:
        super().__init__()
        self.image = Reconstruction(latent_dim, semantic_dim, bits)
        self.semantic = Reconstruction(latent_dim, visual_dim, bits)

    def forward(
        self, features: BatchFeatures, Z: Tensor, gather: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features and own Z [b, d_z] -> R_v, R_s [b, K]."""
        return self.image(Z, features.F_s, gather), self.semantic(Z, features.F_v, gather)


class LatentValueCycle(nn.Module):
    """The cycle of ``schn-mmasia``: queries are the *other* modality's features, values latent.

    Args:
        visual_dim: d_v.
        semantic_dim: d_s.
        latent_dim: d_z.
        bits: K.
    """

    def __init__(self, visual_dim: int, semantic_dim: int, latent_dim: int, bits: int) -> None:
        super().__init__()
        self.image = Reconstruction(semantic_dim, latent_dim, bits)
        self.semantic = Reconstruction(visual_dim, latent_dim, bits)

    def forward(
        self, features: BatchFeatures, Z: Tensor, gather: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features and own Z [b, d_z] -> R_v, R_s [b, K]."""
        return self.image(features.F_s, Z, gather), self.semantic(features.F_v, Z, gather)


CYCLES = {"schn": LatentQueryCycle, "schn-mmasia": LatentValueCycle}


class Discriminators(nn.Module):
    """Distinguish codes of the image and semantic networks (real) from reconstructed ones (fake).

    The published probability is (tanh(a) + 1) / 2 of the last activation a. That equals
    sigmoid(2 a), so the logits are 2 a.

    Args:
        bits: K.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.image = _mlp(bits, 1)
        self.semantic = _mlp(bits, 1)

    def forward(self, image_codes: Tensor, semantic_codes: Tensor) -> Tensor:
        """Image and semantic codes [N, K] each -> logits of being real [2 N, 1]."""
        return 2 * torch.cat([self.image(image_codes), self.semantic(semantic_codes)])


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 1024),
        nn.ReLU(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, outputs),
    )
