"""Codes as signs (-1 and +1), and as packed bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # codes are packed where torch is not installed
    from torch import Tensor


def sign(U: Tensor) -> Tensor:
    """Return -1 or +1 for each value; 0 gives +1.

    Args:
        U: any shape.

    Returns:
        Signs of the same shape, type and device.

    Example:
        >>> import torch
        >>> sign(torch.tensor([-0.3, 0.0, 2.0])).tolist()
        [-1.0, 1.0, 1.0]
    """
    return U.new_ones(()).copysign(U + 0.0)  # -0.0 + 0.0 is 0.0


def pack(B: Tensor | NDArray[np.number]) -> NDArray[np.uint8]:
    """Pack signs into bits: +1 is a set bit.

    Args:
        B: [n, K] signs.

    Returns:
        [n, ceil(K/8)] bytes; bit b of a code is bit b % 8 of byte b // 8, the lowest bit first.

    Example:
        >>> pack(np.array([[1, -1, 1, -1, -1, -1, -1, -1, 1]])).tolist()
        [[5, 1]]
    """
    signs = B if isinstance(B, np.ndarray) else B.cpu().numpy()
    return np.packbits(signs > 0, axis=1, bitorder="little")


def pack_signs(U: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pack the signs of relaxed codes into bits: a value of 0 or more is a set bit.

    Args:
        U: [n, K], relaxed codes.

    Returns:
        [n, ceil(K/8)] bytes, as ``pack`` of ``sign(U)``.

    Example:
        >>> pack_signs(np.array([[0.3, -2.0, 0.0]])).tolist()
        [[5]]
    """
    return np.packbits(U >= 0, axis=1, bitorder="little")


def first_bits(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Cut packed codes to their first bits.

    Args:
        packed: [n, ceil(K/8)] bytes, as ``pack`` returns them.
        bits: k, at most K.

    Returns:
        [n, ceil(k/8)] bytes; the bits of the last byte beyond k are 0.

    Example:
        >>> first_bits(np.array([[255, 255]], np.uint8), bits=11).tolist()
        [[255, 7]]
    """
    cut = packed[:, : -(-bits // 8)].copy()
    if bits % 8:
        cut[:, -1] &= 2 ** (bits % 8) - 1
    return cut


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
