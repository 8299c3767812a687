"""The cycle: networks that reconstruct image and semantic codes, and those that judge them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from schn_ray.methods.deep.schn.attention import BatchAttention
from schn_ray.methods.deep.schn.latent import BatchFeatures


class Reconstruction(nn.Module):
    """Attention over the batch, then an MLP to a code in [-1, 1]."""

    def __init__(self, query_dim: int, value_dim: int, bits: int) -> None:
        super().__init__()
        self.attention = BatchAttention(query_dim, query_dim, value_dim)
        self.to_code = _mlp(query_dim, bits)

    def forward(self, query: Tensor, value: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
        """Own rows' query (and key) [b, d_q] and value [b, d_v] -> R [b, K]."""
        return torch.tanh(self.to_code(self.attention(query, query, value, gather)))


class LatentQueryCycle(nn.Module):
    """The cycle of ``schn``: latent vectors ask, and the *other* modality's features answer."""

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
    """The cycle of ``schn-mmasia``: the *other* modality's features ask, latent vectors answer."""

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
    """Tell codes of the image and semantic networks (real) from reconstructed ones (fake).

    The published probability (tanh(a) + 1) / 2 of the last activation a is sigmoid(2 a), so the
    logits are 2 a.
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
