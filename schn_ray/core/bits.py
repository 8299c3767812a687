"""Codes as signs (-1 and +1), and as packed bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sign(U: Tensor) -> Tensor:
    """Return -1 or +1 for each value; 0 gives +1.

    Args:
        U: any shape.

    Returns:
        Signs of the same shape, type and device.

    Example:
        >>> sign(torch.tensor([-0.3, 0.0, 2.0])).tolist()
        [-1.0, 1.0, 1.0]
    """
    one = torch.ones((), dtype=U.dtype, device=U.device)
    return torch.copysign(one, U + 0.0)  # -0.0 + 0.0 is 0.0


def pack(B: Tensor | NDArray[np.number]) -> NDArray[np.uint8]:
    """Pack signs into bits: +1 is a set bit.

    Args:
        B: [n, K] signs.

    Returns:
        [n, ceil(K/8)] bytes; bit b of a code is bit b % 8 of byte b // 8, the lowest bit first.

    Example:
        >>> pack(torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]])).tolist()
        [[5, 1]]
    """
    positive = B.cpu().numpy() > 0 if isinstance(B, Tensor) else B > 0
    return np.packbits(positive, axis=1, bitorder="little")


def unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """Unpack bits into signs.

    Args:
        packed: [n, ceil(K/8)] bytes, as ``pack`` returns them.
        bits: K, the length of a code.

    Returns:
        [n, K] signs, -1 or +1.

    Example:
        >>> unpack(np.array([[5]], np.uint8), bits=4).tolist()
        [[1.0, -1.0, 1.0, -1.0]]
    """
    positive = np.unpackbits(packed, axis=1, count=bits, bitorder="little")
    return positive.astype(np.float32) * 2 - 1
