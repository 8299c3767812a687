"""Attention over the rows of the global batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class BatchAttention(nn.Module):
    """One-head attention: this worker's rows are queries, all rows of the batch keys and values.

    It computes the same as ``nn.MultiheadAttention`` with one head, with two differences. Keys have
    no bias, because the softmax cancels it. A worker projects only its own rows and gathers the
    projections, which are narrower than the features.

    Args:
        query_dim: d_q, width of queries and of the output.
        key_dim: d_k, width of keys before their projection.
        value_dim: d_v, width of values before their projection.
    """

    def __init__(self, query_dim: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_dim, query_dim)
        self.key = nn.Linear(key_dim, query_dim, bias=False)
        self.value = nn.Linear(value_dim, query_dim)
        self.out = nn.Linear(query_dim, query_dim)
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight)
        for layer in (self.query, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, gather: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Own rows' query [b, d_q], key [b, d_k] and value [b, d_v] -> attended values [b, d_q]."""
        projected = gather(torch.cat([self.key(key), self.value(value)], dim=1))
        keys, values = projected.chunk(2, dim=1)
        attended = scaled_dot_product_attention(self.query(query)[None], keys[None], values[None])
        return self.out(attended[0])
