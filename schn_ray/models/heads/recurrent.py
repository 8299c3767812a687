"""A recurrent head: bits one after the other, each from what was decided before it (DRLIH)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RecurrentHead(nn.Module):
    """f = F W_f + b_f; s_0 = f; s_k = tanh(f W_in + s_(k-1) W_s + b); h_k = s_k . w_k + c_k.

    Args:
        width: d, width of the features.
        hidden: width of f and of the states s.
        bits: K, the steps.
        shared: whether all bits have the same w and c.
    """

    def __init__(self, width: int, hidden: int, bits: int, shared: bool) -> None:
        super().__init__()
        self.bits = bits
        self.feature = nn.Linear(width, hidden)
        self.into = nn.Linear(hidden, hidden)
        self.again = nn.Linear(hidden, hidden, bias=False)
        # a state that neither grows nor fades over the steps
        nn.init.orthogonal_(self.again.weight)
        self.out = nn.Linear(hidden, 1 if shared else bits)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, d] -> h [N, K]."""
        f = self.feature(features)
        pushed, state, states = self.into(f), f, []
        for _ in range(self.bits):
            state = torch.tanh(pushed + self.again(state))
            states.append(state)
        S = torch.stack(states, dim=1)  # [N, K, hidden]
        return (S * self.out.weight).sum(dim=2) + self.out.bias
