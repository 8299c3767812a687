"""The latent network: the paper's transitive latent space between images and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from schn_ray.methods.deep.schn.attention import BatchAttention

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class BatchFeatures(NamedTuple):
    """Input of the latent and the cycle networks; detached, so that they don't train features.

    Attributes:
        F_v: [b, d_v] visual features of this worker's rows.
        F_s: [b, d_s] semantic features of this worker's rows.
        A: [b, N], 1 where one of this worker's rows shares a label with a row of the batch.
    """

    F_v: Tensor
    F_s: Tensor
    A: Tensor


class LatentNetwork(nn.Module):
    """Fuse visual and semantic features into one latent vector per row of the batch.

    H = Attention(F_s, F_s, F_v), then Z = ReLU(A' H W_g + b_g) and
    U_z = act(dropout(Z) W + b) (docs/method.md, "Networks"). Attention learns which rows of the
    batch matter to a row; the graph convolution takes them from the labels. A row's result depends
    on the other rows of the batch, so this network serves training only: encoding an image never
    runs it.

    Args:
        visual_dim: d_v.
        semantic_dim: d_s.
        latent_dim: d_z.
        bits: K.
        dropout: share of Z that is dropped before the hash layer.
        activation: act: ``sigmoid`` as published, whose codes lie in (0, 1) and can't approach a
            -1 bit, or ``tanh``.
        mean_over_neighbours: A' is the row-normalised D^-1 A of Kipf and Welling; otherwise it is
            A, as published.
    """

    def __init__(
        self,
        visual_dim: int,
        semantic_dim: int,
        latent_dim: int,
        bits: int,
        dropout: float = 0.5,
        activation: str = "sigmoid",
        mean_over_neighbours: bool = False,
    ) -> None:
        super().__init__()
        self.attention = BatchAttention(semantic_dim, semantic_dim, visual_dim)
        self.convolution = nn.Linear(semantic_dim, latent_dim)
        self.dropout = nn.Dropout(dropout)
        self.hash = nn.Linear(latent_dim, bits)
        self.activation = ACTIVATIONS[activation]
        self.mean_over_neighbours = mean_over_neighbours

    def forward(
        self, features: BatchFeatures, gather: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features of the batch -> Z [b, d_z], U_z [b, K] of this worker's rows."""
        H = self.attention(features.F_s, features.F_s, features.F_v, gather)
        graph = features.A
        if self.mean_over_neighbours:
            # a row without labels has no neighbour, not even itself
            graph = graph / graph.sum(dim=1, keepdim=True).clamp(min=1)
        Z = torch.relu(self.convolution(graph @ gather(H)))
        return Z, self.activation(self.hash(self.dropout(Z)))
