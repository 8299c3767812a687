"""Class centres: one code per class, far apart from each other, for any bits and any classes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schn_ray.core.errors import SchnRayError

Integers = NDArray[np.int64]

_CANDIDATES = 16  # columns to choose each next one from; 64 gain a bit or none
_STEEPNESS = 8  # of the penalty on near rows; 2 misses what 6 to 12 find
_EFFORT = 2**26  # a table too large for the greedy choice takes its columns at random


def class_centres(classes: int, bits: int, seed: int) -> Tensor:
    """Place classes at codes that are far apart: rows of a Hadamard matrix and their negatives.

    The matrix is Sylvester's, of the smallest order that has K columns and C rows and negatives.
    Where it has just K columns, any two centres differ in K/2 bits or in all K. Otherwise K of the
    columns are chosen greedily, so that the rows stay apart when the others are cut off: 40,000
    centres of 64 bits differ in 17 or 18 bits at least, where codes drawn at random differ in 9.

    Args:
        classes: C, at most 2^K.
        bits: K.
        seed: decides which rows, columns and signs are taken.

    Returns:
        Signs, float32 [C, K]; no two rows are equal.

    Raises:
        SchnRayError: there are not as many codes as classes.
    """
    wanted = max(classes - 1, 1).bit_length()
    if wanted > bits:
        raise SchnRayError(
            f"{classes} classes can't each have a centre of {bits} bits, of which there are "
            f"{2**bits}: wanted {wanted} bits or more; set bits={wanted}, or change codes.init"
        )
    rng = np.random.default_rng(seed)
    order = max(2 ** (bits - 1).bit_length(), 2 ** (wanted - 1))
    columns = _separating_columns(order, bits, rng)
    rows = rng.permutation(order)
    flips = rng.integers(0, 2, order) * 2 - 1
    # each row once before any negative: negatives are the same bits, all the other way
    rows, flips = np.concatenate([rows, rows])[:classes], np.concatenate([flips, -flips])[:classes]
    return torch.from_numpy(_sylvester(rows, columns) * flips[:, None].astype(np.float32))


def _separating_columns(order: int, bits: int, rng: np.random.Generator) -> Integers:
    """Choose K columns in which no two of the matrix's rows, or their negatives, are near.

    How rows i and j differ depends on i xor j alone, so each row need only be compared with row 0:
    time is linear in the order. Columns 0, 1, 2, 4, 8... come first; they tell all rows apart.
    """
    basis = np.concatenate([[0], 2 ** np.arange(order.bit_length() - 1)])
    others = rng.permutation(np.setdiff1d(np.arange(order), basis))
    missing = bits - len(basis)
    if len(others) == missing or order * bits * _CANDIDATES > _EFFORT:
        return np.concatenate([basis, others[:missing]])
    return np.concatenate([basis, _greedy(order, basis, list(others), missing)])


def _greedy(order: int, basis: Integers, pool: list[np.int64], missing: int) -> Integers:
    rows = np.arange(1, order)
    # agreements less disagreements with row 0, which is all ones: 0 is half, the best
    agreement = _sylvester(rows, basis).sum(axis=1)
    chosen: list[np.int64] = []
    while len(chosen) < missing:
        candidates = np.array(pool[:_CANDIDATES])
        after = agreement + _sylvester(candidates, rows)  # [candidates, rows]: H is symmetric
        best = int(np.argmin((after.astype(np.float64) ** _STEEPNESS).sum(axis=1)))
        agreement = after[best]
        chosen.append(pool.pop(best))
        pool = pool[_CANDIDATES - 1 :] + pool[: _CANDIDATES - 1]
    return np.array(chosen, dtype=np.int64)


def _sylvester(rows: Integers, columns: Integers) -> NDArray[np.float32]:
    """Return some rows and columns of Sylvester's Hadamard matrix: (-1)^popcount(i & j)."""
    odd = np.bitwise_count(rows[:, None] & columns) & 1
    return 1 - 2 * odd.astype(np.float32)
