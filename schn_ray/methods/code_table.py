"""The codes of the training rows: one packed table, and what it starts from."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from schn_ray.core.bits import pack, unpack
from schn_ray.data.labels import LabelSets
from schn_ray.methods.centres import class_centres


class CodeTable:
    """The codes of n rows in n * K/8 bytes; a row without a code reads as zeros.

    Attributes:
        packed: uint8 [n, ceil(K/8)].
        coded: bool [n], which rows have a code.
    """

    def __init__(self, rows: int, bits: int) -> None:
        self.bits = bits
        self.packed = np.zeros((rows, -(-bits // 8)), dtype=np.uint8)
        self.coded = np.zeros(rows, dtype=np.bool_)

    def read(self, rows: ArrayLike | Tensor) -> Tensor:
        """Return the codes of rows [N]: float32 [N, K]."""
        rows = np.asarray(rows)
        B = unpack(self.packed[rows], self.bits)
        B[~self.coded[rows]] = 0
        return torch.from_numpy(B)

    def write(self, rows: ArrayLike | Tensor, B: Tensor) -> None:
        """Set the codes of rows [N] to the signs B [N, K]."""
        rows = np.asarray(rows)
        self.packed[rows] = pack(B)
        self.coded[rows] = True

    def state_dict(self) -> dict[str, Tensor]:
        """Return the table as tensors that ``load_state_dict`` takes."""
        return {"packed": torch.tensor(self.packed), "coded": torch.tensor(self.coded)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Fill the table.

        Raises:
            ValueError: a table of other rows or bits.
        """
        packed, coded = state["packed"].numpy(), state["coded"].numpy()
        if packed.shape != self.packed.shape or coded.shape != self.coded.shape:
            raise ValueError(f"codes {packed.shape} do not fit into a table {self.packed.shape}")
        self.packed, self.coded = packed.copy(), coded.copy()


def initial_codes(
    init: Literal["zeros", "random", "hadamard"], label_sets: LabelSets, bits: int, seed: int
) -> CodeTable:
    """Make the codes that training starts from.

    Args:
        init: ``zeros``: no row is coded, as published; ``random``: a random code per label set;
            ``hadamard``: a set's code is the majority sign of its classes' centres, where a tie
            is drawn at random, so an empty set has a random code.
        label_sets: of the rows.
        bits: K.
        seed: decides centres, random codes and ties.

    Raises:
        SchnRayError: more classes than codes of K bits (``hadamard``).
    """
    table = CodeTable(len(label_sets.set_of_row), bits)
    if init == "zeros":
        return table
    rng = np.random.default_rng([seed, bits])
    drawn = rng.integers(0, 2, (label_sets.sets.shape[0], bits), dtype=np.int8) * 2 - 1
    if init == "random":
        of_set = pack(drawn)
    else:
        centres = class_centres(label_sets.sets.shape[1], bits, seed).numpy()
        of_set = pack(label_sets.sets.astype(np.float32) @ centres + drawn / 2)
    table.packed = of_set[label_sets.set_of_row]
    table.coded[:] = True
    return table
