"""SCHN's exact code update, by label sets; it never builds the matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import identity
from schn_ray.data.labels import label_sets, without_implied
from schn_ray.methods.deep.discrete_steps import chunks, solve_bits

_CHUNK = 4096  # rows in one step of the work
_BLOCK = 2**19  # entries in one block of the similarity of label sets: 4 MB
_DENSE = 2**28  # most entries of a dense table of label sets


def pair_counts(sizes: NDArray[np.integer], sets: csr_array) -> tuple[int, int]:
    """Count similar and dissimilar pairs of rows; pairs are ordered and include (i, i).

    N1 = sum_gh m_g m_h G_gh and N0 = n^2 - N1 (docs/method.md, "The code update"). Rows are similar
    if they share a label.

    Args:
        sizes: [L] number of rows of each label set, m.
        sets: [L, C] label matrix of the sets.

    Returns:
        N1, the similar pairs, and N0, the dissimilar ones.

    Raises:
        SchnRayError: nothing can be learned, because no two rows are similar, or all are.

    >>> pair_counts(np.array([2, 1]), csr_array([[1, 0], [0, 1]]))
    (5, 4)
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
    """Solve the codes bit by bit: one round of discrete cyclic coordinate descent (DCC).

    With Q = K S~^T U_v + gamma U_v + alpha U_s + beta U_z, each bit b in turn becomes
    sign(Q_b - B_(not b) (U_v_(not b)^T U_v_b)), the best given all other bits (docs/method.md, "The
    code update"). The result is exact without the pair matrix S~: rows with the same label set have
    the same row of it, so sums over label sets are enough. All sums and products are float64.

    Args:
        B: [n_w, K] present codes of this worker's rows, of any type; 0 for a row without one.
        U_v: [n_w, K] relaxed image codes of this worker's rows.
        U_s: [n_w, K] relaxed semantic codes.
        U_z: [n_w, K] relaxed latent codes.
        set_of_row: [n_w] label set of each row.
        sets: [L, C] label matrix of the sets, the same on all workers.
        alpha: weight of U_s.
        beta: weight of U_z.
        gamma: weight of U_v.
        sum_over_workers: returns the sum of a tensor over all workers; each calls it equally often.

    Returns:
        [n_w, K] new codes of this worker's rows, of B's type.

    Raises:
        SchnRayError: see ``pair_counts``.
    """
    sizes, M, V = (sum_over_workers(x) for x in _statistics(U_v, set_of_row, sets.shape[0]))
    pull_of_set = B.shape[1] * _similarity_pull(sizes, M, sets)
    after = torch.empty_like(B)
    for rows in chunks(len(B), _CHUNK):
        Q = pull_of_set[set_of_row[rows]]
        for weight, U in ((gamma, U_v), (alpha, U_s), (beta, U_z)):
            Q.add_(U[rows], alpha=weight)
        after[rows] = solve_bits(B[rows], Q, V)
    return after


def neighbour_sums(sets: csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return G values [L, D], where G_gh is 1 if the label sets g and h share a label, else 0.

    An empty set shares no label with any set, itself included. Sets that differ only in implied
    labels have the same row of G, so they are merged first.

    Args:
        sets: [L, C] label matrix of the sets.
        values: [L, D] values of each set.
    """
    fewer = label_sets(without_implied(sets))
    merged = np.zeros((fewer.sets.shape[0], values.shape[1]))
    np.add.at(merged, fewer.set_of_row, values)
    return _neighbour_sums(fewer.sets, merged)[fewer.set_of_row]


def _neighbour_sums(sets: csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply by G block by block, so that G [L, L] is never in memory."""
    similar = _similar_dense if _is_dense(sets) else _similar_sparse
    sums = np.empty_like(values)
    start = 0
    for G in similar(sets):
        sums[start : start + G.shape[0]] = G @ values
        start += G.shape[0]
    return sums


def _statistics(U_v: Tensor, set_of_row: Tensor, sets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return per label set the sizes [L] and sums M [L, K] of U_v, and U_v^T U_v, as float64."""
    bits = U_v.shape[1]
    M = U_v.new_zeros((sets, bits), dtype=torch.float64)
    V = U_v.new_zeros((bits, bits), dtype=torch.float64)
    for rows in chunks(len(U_v), _CHUNK):
        U = U_v[rows].double()
        M.index_add_(0, set_of_row[rows], U)
        V.addmm_(U.T, U)
    sizes = torch.bincount(set_of_row, minlength=sets).double()
    return sizes, M, V


def _similarity_pull(sizes: Tensor, M: Tensor, sets: csr_array) -> Tensor:
    """Return the rows of S~^T U_v, one per label set: [L, K]."""
    present = torch.nonzero(sizes)[:, 0]  # the rows are a sample: many sets may be absent
    counts, sums = sizes[present, None].cpu().numpy(), M[present].cpu().numpy()
    present_sets = sets[present.cpu().numpy()]
    both = neighbour_sums(present_sets, np.concatenate([counts, sums], axis=1))
    N1, N0 = _checked_counts(counts[:, 0], present_sets, both[:, 0])
    r = N1 / N0
    pull = torch.zeros_like(M)
    pull[present] = torch.from_numpy((1 + r) * both[:, 1:] - r * sums.sum(axis=0)).to(M.device)
    return pull


def _checked_counts(
    sizes: NDArray[np.integer | np.float64], sets: csr_array, similar: NDArray[np.float64]
) -> tuple[int, int]:
    """Return N1 and N0, given the number of rows similar to a row of each set, ``similar`` [L]."""
    n, N1 = int(sizes.sum()), int(sizes @ similar)
    N0 = n * n - N1
    if N0 == 0:
        raise SchnRayError(
            f"all {n} training rows share a label with each other, so none are dissimilar. "
            "Expected at least two classes; remove a label that all rows have"
        )
    others = N1 - int(sizes[np.diff(sets.indptr) > 0].sum())  # a labelled row is similar to itself
    if others == 0:
        raise SchnRayError(
            f"no two of the {n} training rows share a label, so none are similar. "
            "Expected classes of two images or more"
        )
    return N1, N0


def _is_dense(sets: csr_array) -> bool:
    # pairs of sets that share a label, counted once per label: the work of a sparse product
    joined = (np.bincount(sets.indices, minlength=1).astype(np.float64) ** 2).sum()
    L, C = sets.shape
    return bool(joined > 0.02 * L * L and L * C <= _DENSE)


def _similar_dense(sets: csr_array) -> Iterator[NDArray[np.float64]]:
    S = sets.astype(np.float32).toarray()
    for rows in chunks(len(S), max(_BLOCK // len(S), 1)):
        yield (S[rows] @ S.T > 0).astype(np.float64)


def _similar_sparse(sets: csr_array) -> Iterator[csr_array]:
    # float64, because counts of shared labels overflow uint8 at 256
    S = sets.astype(np.float64)
    columns = S.T.tocsr()
    for rows in chunks(S.shape[0], _CHUNK):
        G = S[rows] @ columns
        G.data[:] = 1
        yield G
