"""Discrete cyclic coordinate steps: each bit of all codes in turn is set to its best value."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from schn_ray.core.bits import sign

_BITS = 8  # bits solved in one block, which stays in the cache: each bit depends on those before it


def solve_bits(B: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """Return codes in which each bit b in turn became sign(Q_b - B_(not b) V_(not b),b).

    It is the bit that maximises 2 tr(B^T Q) - tr(B V B^T), given all other bits. Rows do not depend
    on each other. All sums are float64.

    Args:
        B: [n, K] present codes, of any type.
        Q: [n, K].
        V: [K, K], symmetric; its diagonal does not matter.

    Returns:
        [n, K] of B's type.
    """
    V = V.double().clone().fill_diagonal_(0)
    after = torch.empty_like(B)
    for rows in chunks(len(B)):
        after[rows] = _solved(_columns(B[rows]), _columns(Q[rows]), V).T
    return after


def chunks(n: int, size: int = 4096) -> Iterator[slice]:
    """Return slices of n rows, each small enough to work on.

    Args:
        n: number of rows.
        size: of a slice.
    """
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _solved(B: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """Set each bit of B [K, c] in turn to the sign of Q - V B, where the diagonal of V is 0."""
    for start in range(0, len(B), _BITS):
        bits = slice(start, start + _BITS)
        block = B[bits]
        others = V[bits].clone()
        others[:, bits] = 0
        left = Q[bits].addmm_(others, B, alpha=-1)
        for bit, rest, weights in zip(block, left, V[bits, bits], strict=True):
            bit.copy_(sign(rest.addmv_(block.T, weights, alpha=-1)))
    return B


def _columns(x: Tensor) -> Tensor:
    # a copy even where the type fits, since codes are solved in place
    return x.T.to(torch.float64, memory_format=torch.contiguous_format, copy=True)
