"""Attention over the rows of the global batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class BatchAttention(nn.Module):
    """One head: each row of the global batch is asked by each of this worker's rows.

    As ``nn.MultiheadAttention``, but for a bias of the keys, which the softmax cancels, and that a
    worker projects only its own rows: keys and values are gathered when they are narrow already.
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
        """Own rows' query [b, d_q], key [b, d_k] and value [b, d_v] -> what they heard [b, d_q]."""
        asked = gather(torch.cat([self.key(key), self.value(value)], dim=1))
        keys, values = asked.chunk(2, dim=1)
        heard = scaled_dot_product_attention(self.query(query)[None], keys[None], values[None])
        return self.out(heard[0])
