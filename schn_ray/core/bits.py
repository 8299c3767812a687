"""Codes as signs -1 and +1, and as packed bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sign(U: Tensor) -> Tensor:
    """Return -1 or +1 for each value, of the same type; 0 gives +1.

    >>> sign(torch.tensor([-0.3, 0.0, 2.0])).tolist()
    [-1.0, 1.0, 1.0]
    """
    one = torch.ones((), dtype=U.dtype, device=U.device)
    return torch.copysign(one, U + 0.0)  # -0.0 + 0.0 is 0.0


def pack(B: Tensor | NDArray[np.number]) -> NDArray[np.uint8]:
    """Pack signs [n, K] into bytes [n, ceil(K/8)]: bit b is bit b % 8 of byte b // 8.

    >>> pack(torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]])).tolist()
    [[5, 1]]
    """
    positive = B.cpu().numpy() > 0 if isinstance(B, Tensor) else B > 0
    return np.packbits(positive, axis=1, bitorder="little")


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """Unpack bytes [n, ceil(K/8)] into signs [n, K]."""
    positive = np.unpackbits(packed, axis=1, count=bits, bitorder="little")
    return positive.astype(np.float32) * 2 - 1
