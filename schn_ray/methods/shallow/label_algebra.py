"""Products with the similarity of all pairs of rows, by label sets: exact, and linear in n.

Rows with equal labels have equal rows of the similarity S, so a product with S needs only the sums
of rows by label set, and G [L, L], which says which sets share a label.
"""

from __future__ import annotations

import numpy as np

from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.deep.schn.code_update import neighbour_sums, pair_counts
from schn_ray.methods.shallow.anchors import sums_by_group
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard


def set_sums(labels: LabelSets, numbers: Rows, values: Shard) -> Array:
    """Return the sums of some rows' values by label set: M [L, q].

    Args:
        labels: of all rows.
        numbers: of these rows [m].
        values: [m, q].
    """
    return sums_by_group(labels.set_of_row[numbers], labels.sets.shape[0], values)


def feature_set_sums(rows: FeatureRows, labels: LabelSets) -> Array:
    """Return the sums of features by label set: M_X [L, d].

    Args:
        rows: features.
        labels: of all rows.
    """
    (sums,) = rows.sum(lambda X, numbers: (set_sums(labels, numbers, X),))
    return sums


def class_matrix(labels: LabelSets) -> Array:
    """Return the labels of the sets, dense: [L, C].

    Args:
        labels: of all rows.
    """
    return np.asarray(labels.sets.toarray(), np.float64)


def shared_rows(labels: LabelSets) -> Array:
    """Return A of each set [L, C]: how many rows of each class share a label with its rows.

    A row of S01 Y for S01 = 1 where two rows share a label.

    Args:
        labels: of all rows.
    """
    return neighbour_sums(labels.sets, labels.sizes[:, None] * class_matrix(labels))


def signed_quadratic(labels: LabelSets, sums: Array) -> Array:
    """Return P^T S P [q, q] for S = 1 where two rows share a label, else -1.

    Args:
        labels: of all rows.
        sums: of P's rows by label set [L, q].
    """
    total = sums.sum(axis=0)
    return 2 * sums.T @ neighbour_sums(labels.sets, sums) - np.outer(total, total)


def check_pairs(labels: LabelSets | None) -> tuple[LabelSets, int, int]:
    """Return the labels, the number of similar pairs, and of dissimilar ones.

    Args:
        labels: of all rows.

    Raises:
        SchnRayError: nothing can be learned, because all rows are similar, or none are.
    """
    if labels is None:
        raise ValueError("a method with labels was fitted without them")
    return labels, *pair_counts(labels.sizes, labels.sets)
