"""Class centres: one code per class, far apart from each other, for any bits and any classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import LabelSets

Integers = NDArray[np.int64]
Kind = Literal["separated", "random"]
A = TypeVar("A", Tensor, NDArray[Any])

_CANDIDATES = 16  # columns compared for each choice; 64 gain at most one bit of distance
_STEEPNESS = 8  # exponent of the penalty on near rows; 6 to 12 do equally well, 2 does worse
_ORDERED_BY = 256  # codes at most whose pairs put the columns of nested codes in order
_EFFORT = 2**26  # above this order x bits x candidates, columns are drawn at random


def class_centres(classes: int, bits: int, seed: int) -> Tensor:
    """Give each class a code far from the others: rows of a Hadamard matrix and their negatives.

    The matrix is Sylvester's, of the smallest order with K columns or more, and with C rows or more
    when negated rows count too. If it has exactly K columns, any two centres differ in K/2 bits or
    in all K. Otherwise K columns are chosen greedily so that rows stay far apart without the other
    columns: 40,000 centres of 64 bits differ in at least 17 or 18 bits, random codes in 9.

    Args:
        classes: C, at most 2^K.
        bits: K.
        seed: decides rows, columns and signs.

    Returns:
        Signs, float32 [C, K]; no two rows are equal.

    Raises:
        SchnRayError: more classes than codes of K bits.

    >>> class_centres(classes=3, bits=4, seed=0).shape
    torch.Size([3, 4])
    """
    needed = max(classes - 1, 1).bit_length()
    if needed > bits:
        raise SchnRayError(
            f"{classes} classes can't each have a centre of {bits} bits, of which there are "
            f"{2**bits}: expected {needed} bits or more; set bits={needed}, or use a method "
            "without centres"
        )
    rng = np.random.default_rng(seed)
    order = max(2 ** (bits - 1).bit_length(), 2 ** (needed - 1))
    columns = _separating_columns(order, bits, rng)
    rows = rng.permutation(order)
    flips = rng.integers(0, 2, order) * 2 - 1
    # all rows come before the first negative: a row and its negative share no information
    rows, flips = np.concatenate([rows, rows])[:classes], np.concatenate([flips, -flips])[:classes]
    return torch.from_numpy(_sylvester(rows, columns) * flips[:, None].astype(np.float32))


def centres_of_classes(kind: Kind, classes: int, bits: int, seed: int) -> Tensor:
    """Give each class a code, far from the others or at random.

    Args:
        kind: ``separated``: see ``class_centres``; ``random``: independent fair signs.
        classes: C.
        bits: K.
        seed: of the draw.

    Returns:
        Signs, float32 [C, K].

    Raises:
        SchnRayError: more classes than codes of K bits (``separated``).
    """
    if kind == "separated":
        return class_centres(classes, bits, seed)
    rng = np.random.default_rng([seed, bits, classes])
    return torch.from_numpy(rng.integers(0, 2, (classes, bits)) * 2 - 1).float()


def nested_codes(draw: Callable[[int, int], A], lengths: Sequence[int], seed: int) -> A:
    """Draw codes whose first bits are codes, too, as far apart as so many bits allow.

    It is one draw of K bits whose columns are put in order: each next one is that which keeps the
    agreement of all pairs of codes nearest to 0, and the columns of a length are exchanged for
    later ones while that helps. All K bits together are what they would be alone. Of 10 centres of
    64 bits, the first 16 bits differ in 6 to 10 places and the first 32 in 15 to 17; the first bits
    of a draw that is not put in order may be equal.

    Args:
        draw: bits, seed -> codes [m, bits].
        lengths: ascending; the last is K.
        seed: of the draw and of the order.

    Returns:
        Codes [m, K].

    Raises:
        SchnRayError: ``draw`` refuses the first length: more classes than it has codes.
    """
    codes = draw(lengths[-1], seed)
    if len(lengths) == 1:
        return codes
    draw(lengths[0], seed)  # it may refuse
    rng = np.random.default_rng([seed, *lengths])
    rows = rng.permutation(len(codes))[:_ORDERED_BY]
    return codes[:, _order(np.asarray(codes[rows], np.float64), lengths, rng)]


def _order(
    codes: NDArray[np.float64], lengths: Sequence[int], rng: np.random.Generator
) -> list[int]:
    """Return an order of the columns of codes [m, K] in which the first bits are far apart."""
    first, second = np.triu_indices(len(codes), 1)
    agree = codes[first] * codes[second]  # [pairs, K]
    chosen, later = list[int](), rng.permutation(codes.shape[1]).tolist()
    sums, before = np.zeros(len(agree)), 0
    for bits in lengths[:-1]:
        while len(chosen) < bits:
            best = int(_energies(sums, agree, later).argmin())
            sums = sums + agree[:, later[best]]
            chosen.append(later.pop(best))
        for i in range(before, bits):
            others = sums - agree[:, chosen[i]]
            energies = _energies(others, agree, [chosen[i], *later])
            if best := int(energies.argmin()):
                chosen[i], later[best - 1] = later[best - 1], chosen[i]
                sums = others + agree[:, chosen[i]]
        before = bits
    return chosen + later


def _energies(
    sums: NDArray[np.float64], agree: NDArray[np.float64], columns: Sequence[int]
) -> NDArray[np.float64]:
    """Return the penalty on near and far pairs after each of the first candidates is added."""
    after = sums[:, None] + agree[:, columns[: 2 * _CANDIDATES]]
    energies: NDArray[np.float64] = (((after**2) ** 2) ** 2).sum(axis=0)
    return energies


def guaranteed_distance(classes: int, bits: int) -> int:
    """Return the least distance that C codes of K bits can surely have (Gilbert and Varshamov).

    It is the largest d with (C - 1) V(d - 1) < 2^K, where V(r) codes lie within the distance r.

    Args:
        classes: C.
        bits: K.

    Example:
        >>> guaranteed_distance(classes=10, bits=32)
        13
    """
    volume, distance = 0, 0
    while distance < bits:
        volume += comb(bits, distance)
        if (classes - 1) * volume >= 2**bits:
            break
        distance += 1
    return distance


def least_distance(codes: Tensor) -> int:
    """Return the least number of bits in which two codes differ.

    Args:
        codes: signs [C, K] of two classes or more.
    """
    differ = (codes.shape[1] - codes @ codes.T) / 2
    return int(differ.fill_diagonal_(codes.shape[1]).min())


def label_set_centres(label_sets: LabelSets, bits: int, seed: int) -> NDArray[np.int8]:
    """Give each label set a code: the majority sign of its classes' centres.

    Args:
        label_sets: L of them.
        bits: K.
        seed: decides centres and ties; an empty set gets a random code.

    Returns:
        Signs [L, K].

    Raises:
        SchnRayError: more classes than codes of K bits.
    """
    centres = class_centres(label_sets.sets.shape[1], bits, seed).numpy()
    votes = label_sets.sets.astype(np.float32) @ centres + random_codes(label_sets, bits, seed) / 2
    return np.where(votes >= 0, 1, -1).astype(np.int8)


def random_codes(label_sets: LabelSets, bits: int, seed: int) -> NDArray[np.int8]:
    """Draw a code for each label set.

    Args:
        label_sets: L of them.
        bits: K.
        seed: of the draw.

    Returns:
        Signs [L, K].
    """
    rng = np.random.default_rng([seed, bits])
    return rng.integers(0, 2, (label_sets.sets.shape[0], bits), dtype=np.int8) * 2 - 1


def _separating_columns(order: int, bits: int, rng: np.random.Generator) -> Integers:
    """Choose K columns in which the matrix's rows and their negatives are far apart.

    The bits in which rows i and j differ depend only on i xor j, so each row is compared with row 0
    alone: time is linear in the order. Columns 0, 1, 2, 4, 8... come first; they make all rows
    distinct.
    """
    basis = np.concatenate([[0], 2 ** np.arange(order.bit_length() - 1)])
    others = rng.permutation(np.setdiff1d(np.arange(order), basis))
    missing = bits - len(basis)
    if len(others) == missing or order * bits * _CANDIDATES > _EFFORT:
        return np.concatenate([basis, others[:missing]])
    return np.concatenate([basis, _greedy(order, basis, list(others), missing)])


def _greedy(order: int, basis: Integers, pool: list[np.int64], missing: int) -> Integers:
    rows = np.arange(1, order)
    # agreements minus disagreements with row 0, which is all ones: 0 is best
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
    """Return the given rows and columns of Sylvester's Hadamard matrix: (-1)^popcount(i & j)."""
    odd = np.bitwise_count(rows[:, None] & columns) & 1
    return 1 - 2 * odd.astype(np.float32)
