"""Labels as a sparse matrix, and its distinct rows: the label sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from torch import Tensor

Rows = NDArray[np.int64]

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class LabelSets:
    """The distinct rows of a label matrix. Rows with equal labels are similar to the same rows.

    Attributes:
        set_of_row: [n] number of each row's label set, in [0, L).
        sets: [L, C] label matrix of the sets, in the order in which they first appear.
    """

    set_of_row: Rows
    sets: csr_array

    @cached_property
    def sizes(self) -> Rows:
        """How many rows have each set: [L]."""
        return np.bincount(self.set_of_row, minlength=self.sets.shape[0])


def label_matrix(labels: Sequence[Sequence[int]], classes: int) -> csr_array:
    """Return the labels of rows as a sparse multi-hot matrix.

    Args:
        labels: class numbers of each row; a row may have none, and a repeated class counts once.
        classes: C, the number of classes.

    Returns:
        [n, C] of 0 and 1, uint8.

    Raises:
        ValueError: a class outside [0, classes).

    Example:
        >>> label_matrix([[0, 2], [], [1]], classes=3).toarray().tolist()
        [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    """
    starts = np.cumsum([0, *map(len, labels)])
    columns = np.fromiter(chain.from_iterable(labels), dtype=np.int64, count=int(starts[-1]))
    outside = columns[(columns < 0) | (columns >= classes)]
    if len(outside):
        raise ValueError(f"class {outside[0]} is outside 0..{classes - 1}")
    ones = np.ones(len(columns), dtype=np.uint8)
    matrix = csr_array((ones, columns, starts), shape=(len(labels), classes))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def label_sets(labels: csr_array) -> LabelSets:
    """Return the distinct rows of a label matrix, numbered by first appearance.

    Args:
        labels: [n, C] label matrix.

    Example:
        >>> label_sets(label_matrix([[1], [0, 1], [1]], classes=2)).set_of_row.tolist()
        [0, 1, 0]
    """
    matrix = labels.sorted_indices()
    _, first, inverse = np.unique(_fingerprints(matrix), return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    result = LabelSets(number[inverse], matrix[np.sort(first)])
    _check_no_collision(matrix, result)
    return result


def without_implied(labels: csr_array) -> csr_array:
    """Drop labels that imply another label: every row that has them also has the other one.

    Two rows that share such a label share the other one too, so the same rows stay similar. Of
    labels that always come together, the first is kept. A label that no row has is dropped.

    Args:
        labels: [n, C] label matrix.

    Returns:
        [n, at most C] label matrix.

    Example:
        >>> cat, siamese, dog = 0, 1, 2
        >>> labels = label_matrix([[cat], [cat, siamese], [dog]], classes=3)
        >>> without_implied(labels).toarray().tolist()
        [[1, 0], [1, 0], [0, 1]]
    """
    counts = np.bincount(labels.indices, minlength=labels.shape[1])
    together = (labels.T.astype(np.int64) @ labels.astype(np.int64)).tocoo()
    label, other = together.coords
    wider = counts[other] > counts[label]
    implied = (together.data == counts[label]) & (
        wider | ((counts[other] == counts[label]) & (other < label))
    )
    needed = counts > 0
    needed[label[implied]] = False
    return labels[:, needed]


def multi_hot(labels: csr_array, rows: Rows) -> Tensor:
    """Return rows of a label matrix as a dense tensor.

    Args:
        labels: [n, C] label matrix.
        rows: [N] row numbers.

    Returns:
        [N, C] float32 of 0 and 1.
    """
    import torch  # not above: metrics use labels without torch

    return torch.from_numpy(labels[rows].toarray().astype(np.float32))


def share_a_label(left: csr_array, right: csr_array) -> NDArray[np.bool_]:
    """Tell which rows of two label matrices are similar: they share at least one label.

    Args:
        left: [L1, C] label matrix.
        right: [L2, C] label matrix.

    Returns:
        [L1, L2] bool.

    Example:
        >>> share_a_label(label_matrix([[0], []], 2), label_matrix([[0, 1], [1], []], 2)).tolist()
        [[True, False, False], [False, False, False]]
    """
    return shared_labels(left, right) > 0


def shared_labels(left: csr_array, right: csr_array) -> NDArray[np.int32]:
    """Count the labels that rows of two label matrices share.

    Args:
        left: [L1, C] label matrix.
        right: [L2, C] label matrix.

    Returns:
        [L1, L2] counts.

    Example:
        >>> shared_labels(label_matrix([[0, 1]], 2), label_matrix([[0, 1], [1], []], 2)).tolist()
        [[2, 1, 0]]
    """
    # int32: a count in uint8 would overflow at 256 shared labels
    return np.asarray((left.astype(np.int32) @ right.T.astype(np.int32)).toarray())


def _fingerprints(matrix: csr_array) -> NDArray[np.uint64]:
    """Hash each row's labels to 64 bits: the sum of a pseudo-random number per label."""
    mixed = _mixed(np.arange(1, matrix.shape[1] + 1, dtype=np.uint64))
    sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed[matrix.indices], dtype=np.uint64)])
    return sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]]


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # splitmix64 (Steele et al., OOPSLA 2014): consecutive numbers become unrelated ones
    x = x * _MIX
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _check_no_collision(matrix: csr_array, result: LabelSets) -> None:
    rebuilt = result.sets[result.set_of_row]
    same = np.array_equal(rebuilt.indptr, matrix.indptr) and np.array_equal(
        rebuilt.indices, matrix.indices
    )
    # of 1e19 pairs of sets, one has equal fingerprints; then this stops
    assert same, "two label sets have one fingerprint"
