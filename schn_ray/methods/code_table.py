"""The codes of the training rows: a packed table, and the codes that training starts from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from schn_ray.core.bits import pack, unpack
from schn_ray.data.labels import LabelSets
from schn_ray.methods.centres import label_set_centres, nested_codes, random_codes


class CodeTable:
    """The codes of n rows in n * K/8 bytes; ``read`` gives zeros for a row without a code.

    Args:
        rows: n.
        bits: K.

    Attributes:
        packed: uint8 [n, ceil(K/8)].
        coded: bool [n], whether a row has a code.
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
        """Return a copy of the table as tensors, for ``load_state_dict``."""
        return {"packed": torch.tensor(self.packed), "coded": torch.tensor(self.coded)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the table from what ``state_dict`` returned.

        Raises:
            ValueError: the state has another number of rows or bits.
        """
        packed, coded = state["packed"].numpy(), state["coded"].numpy()
        if packed.shape != self.packed.shape or coded.shape != self.coded.shape:
            raise ValueError(f"codes {packed.shape} do not fit into a table {self.packed.shape}")
        self.packed, self.coded = packed.copy(), coded.copy()


def initial_codes(
    init: Literal["zeros", "random", "hadamard"],
    label_sets: LabelSets,
    bits: int,
    seed: int,
    lengths: Sequence[int] = (),
) -> CodeTable:
    """Return the codes that training starts from.

    Args:
        init: ``zeros``: no row has a code, as published. ``random``: each label set gets a random
            code. ``hadamard``: a set's code is the majority sign of its classes' centres; ties are
            drawn at random, so an empty set gets a random code.
        label_sets: of the rows.
        bits: K.
        seed: decides centres, random codes and ties.
        lengths: of nested codes, see ``centres.nested_codes``.

    Returns:
        A table of all rows.

    Raises:
        SchnRayError: more classes than codes of K bits (``hadamard``).
    """
    table = CodeTable(len(label_sets.set_of_row), bits)
    if init == "zeros":
        return table
    codes_of = random_codes if init == "random" else label_set_centres
    draw = functools.partial(codes_of, label_sets)
    of_set = pack(nested_codes(draw, lengths or (bits,), seed)[:, :bits])
    table.packed = of_set[label_sets.set_of_row]
    table.coded[:] = True
    return table
