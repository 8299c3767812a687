"""Codes of -1 and +1: signs, packing, the table of training codes, and the exact code update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.centres import class_centres
from schn_ray.errors import SchnRayError
from schn_ray.labels import LabelSets, label_sets, without_implied

__all__ = [
    "CodeTable",
    "class_centres",
    "initial_codes",
    "neighbour_sums",
    "pack",
    "pair_counts",
    "sign",
    "unpack",
    "update_codes",
]

_CHUNK = 4096  # rows solved at once, and
_BITS = 8  # bits solved at once: they stay in the cache while each waits for those before it
_BLOCK = 2**19  # entries of the similarity of label sets held at once: 4 MB
_DENSE = 2**28  # entries of a dense table of label sets, at most


def identity(x: Tensor) -> Tensor:
    """Return x: the sum over the one worker that there is."""
    return x


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


def pair_counts(sizes: NDArray[np.integer], sets: csr_array) -> tuple[int, int]:
    """Count the ordered pairs of rows, each with itself included, that are similar and that aren't.

    Args:
        sizes: rows of each label set [L].
        sets: label matrix of the sets [L, C].

    Returns:
        N1, N0.

    Raises:
        SchnRayError: nothing can be learnt, as no two rows are similar, or all are.
    """
    similar = neighbour_sums(sets, np.asarray(sizes, dtype=np.float64)[:, None])[:, 0]
    return _checked_counts(np.asarray(sizes), sets, similar)


def update_codes(
    B: Tensor,
    U_v: Tensor,
    U_s: Tensor,
    U_z: Tensor,
    set_of_row: Tensor,
    sets: csr_array,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    sum_over_workers: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """Solve the codes bit by bit, each bit the best given the others: one round of DCC.

    Exact, without the pair matrix: rows with the same label set have the same row of S~, so sums
    over label sets are enough (method.md, "The code update"). All sums and products are float64.

    Args:
        B: [n_w, K] codes now of this worker's rows, of any type; zeros where there is none yet.
        U_v: [n_w, K] relaxed image codes of this worker's rows.
        U_s: [n_w, K] relaxed semantic codes.
        U_z: [n_w, K] relaxed latent codes.
        set_of_row: [n_w] label set of each row.
        sets: [L, C] label matrix of the sets, the same on all workers.
        alpha: pull of U_s.
        beta: pull of U_z.
        gamma: pull of U_v.
        sum_over_workers: adds up a tensor over the workers, who call it in the same order.

    Returns:
        [n_w, K] new codes of this worker's rows, of B's type.

    Raises:
        SchnRayError: see ``pair_counts``.
    """
    sizes, M, V = (sum_over_workers(x) for x in _statistics(U_v, set_of_row, sets.shape[0]))
    pull_of_set = B.shape[1] * _similarity_pull(sizes, M, sets)
    V.fill_diagonal_(0)
    after = torch.empty_like(B)
    for rows in _chunks(len(B), _CHUNK):
        Q = pull_of_set[set_of_row[rows]]
        for weight, U in ((gamma, U_v), (alpha, U_s), (beta, U_z)):
            Q.add_(U[rows], alpha=weight)
        after[rows] = _solved(_columns(B[rows]), _columns(Q), V).T
    return after


def neighbour_sums(sets: csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum values [L, D] over the sets that share a label with each set: G values, [L, D].

    An empty set shares a label with none, not even itself. Sets that differ in implied labels only
    are similar to the same ones: they are summed as one.
    """
    fewer = label_sets(without_implied(sets))
    merged = np.zeros((fewer.sets.shape[0], values.shape[1]))
    np.add.at(merged, fewer.set_of_row, values)
    return _neighbour_sums(fewer.sets, merged)[fewer.set_of_row]


def _neighbour_sums(sets: csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Work in blocks: G [L, L] never exists."""
    similar = _similar_dense if _is_dense(sets) else _similar_sparse
    sums = np.empty_like(values)
    start = 0
    for G in similar(sets):
        sums[start : start + G.shape[0]] = G @ values
        start += G.shape[0]
    return sums


def _statistics(U_v: Tensor, set_of_row: Tensor, sets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return sizes [L], sums M [L, K] of U_v over label sets, and U_v^T U_v [K, K], as float64."""
    bits = U_v.shape[1]
    M = U_v.new_zeros((sets, bits), dtype=torch.float64)
    V = U_v.new_zeros((bits, bits), dtype=torch.float64)
    for rows in _chunks(len(U_v), _CHUNK):
        U = U_v[rows].double()
        M.index_add_(0, set_of_row[rows], U)
        V.addmm_(U.T, U)
    sizes = torch.bincount(set_of_row, minlength=sets).double()
    return sizes, M, V


def _similarity_pull(sizes: Tensor, M: Tensor, sets: csr_array) -> Tensor:
    """Return S~^T U_v for a row of each set: [L, K]."""
    present = torch.nonzero(sizes)[:, 0]  # the rows are a sample: many sets may have none
    counts, sums = sizes[present, None].cpu().numpy(), M[present].cpu().numpy()
    there = sets[present.cpu().numpy()]
    both = neighbour_sums(there, np.concatenate([counts, sums], axis=1))
    N1, N0 = _checked_counts(counts[:, 0], there, both[:, 0])
    r = N1 / N0
    pull = torch.zeros_like(M)
    pull[present] = torch.from_numpy((1 + r) * both[:, 1:] - r * sums.sum(axis=0)).to(M.device)
    return pull


def _solved(B: Tensor, Q: Tensor, V: Tensor) -> Tensor:
    """Set each bit of B [K, c] in turn to the sign of Q - V B, where V has no diagonal."""
    for start in range(0, len(B), _BITS):
        bits = slice(start, start + _BITS)
        together = B[bits]
        others = V[bits].clone()
        others[:, bits] = 0
        left = Q[bits].addmm_(others, B, alpha=-1)
        for bit, rest, weights in zip(together, left, V[bits, bits], strict=True):
            bit.copy_(sign(rest.addmv_(together.T, weights, alpha=-1)))
    return B


def _checked_counts(
    sizes: NDArray[np.integer | np.float64], sets: csr_array, similar: NDArray[np.float64]
) -> tuple[int, int]:
    """Return N1 and N0, given how many rows are similar to a row of each set [L]."""
    n, N1 = int(sizes.sum()), int(sizes @ similar)
    N0 = n * n - N1
    if N0 == 0:
        raise SchnRayError(
            f"all {n} training rows share a label with each other: nothing tells them apart. "
            "Wanted at least two classes; drop a label that all rows have"
        )
    others = N1 - int(sizes[np.diff(sets.indptr) > 0].sum())  # a labelled row is like itself
    if others == 0:
        raise SchnRayError(
            f"no two of the {n} training rows share a label: nothing says what is alike. "
            "Wanted classes of several images each"
        )
    return N1, N0


def _is_dense(sets: csr_array) -> bool:
    # pairs of sets that a label joins, counted once a label: what a sparse product works through
    joined = (np.bincount(sets.indices, minlength=1).astype(np.float64) ** 2).sum()
    L, C = sets.shape
    return bool(joined > 0.02 * L * L and L * C <= _DENSE)


def _similar_dense(sets: csr_array) -> Iterator[NDArray[np.float64]]:
    S = sets.astype(np.float32).toarray()
    for rows in _chunks(len(S), max(_BLOCK // len(S), 1)):
        yield (S[rows] @ S.T > 0).astype(np.float64)


def _similar_sparse(sets: csr_array) -> Iterator[csr_array]:
    # floats, as counts of shared labels in uint8 wrap at 256
    S = sets.astype(np.float64)
    columns = S.T.tocsr()
    for rows in _chunks(S.shape[0], _CHUNK):
        G = S[rows] @ columns
        G.data[:] = 1
        yield G


def _columns(x: Tensor) -> Tensor:
    return x.T.to(torch.float64, memory_format=torch.contiguous_format)


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
