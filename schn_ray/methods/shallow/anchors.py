"""Anchors: the few rows, or centres of rows, that others are described by."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from schn_ray.data.labels import Rows
from schn_ray.methods.shallow.draws import chosen_rows
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard


def random_anchors(rows: FeatureRows, at_most: int, seed: int) -> Array:
    """Return m different rows drawn at random [m, d], m = min(at_most, n).

    Args:
        rows: prepared features.
        at_most: anchors.
        seed: of the draw.
    """
    return rows.take(chosen_rows(seed, "anchors", rows.count, at_most)).astype(np.float64)


def kmeans_anchors(rows: FeatureRows, at_most: int, seed: int, rounds: int = 10) -> Array:
    """Return centres of k-means [m, d], by Lloyd's rounds from random rows.

    A cluster without rows keeps its centre.

    Args:
        rows: prepared features.
        at_most: centres.
        seed: of the rows that the centres start from.
        rounds: passes over the rows.
    """
    centres = random_anchors(rows, at_most, seed)
    for _ in range(rounds):
        sums, sizes = rows.sum(lambda X, _: _cluster_sums(X, centres))
        filled = sizes > 0
        centres[filled] = sums[filled] / sizes[filled, None]
    return centres


def squared_distances(X: Shard, anchors: Array) -> Shard:
    """Return ||x_i - a_j||^2 [n, m], of the type of X; 0 where rounding would make it negative.

    Args:
        X: [n, d].
        anchors: [m, d].
    """
    distances = X @ (-2 * anchors.T).astype(X.dtype)
    distances += np.einsum("ij,ij->i", X, X)[:, None]
    distances += np.einsum("ij,ij->i", anchors, anchors).astype(X.dtype)
    return np.maximum(distances, 0, out=distances)


def sums_by_group(groups: Rows, count: int, values: Shard) -> Array:
    """Return the sum of the rows of each group [count, q].

    Args:
        groups: the group of each row [n].
        count: of groups.
        values: [n, q].
    """
    n = len(groups)
    members = csr_array((np.ones(n), groups, np.arange(n + 1)), shape=(n, count))
    return np.asarray(members.T @ values)


def _cluster_sums(X: Shard, centres: Array) -> tuple[Array, Array]:
    nearest = squared_distances(X, centres).argmin(axis=1)
    sizes = np.bincount(nearest, minlength=len(centres)).astype(np.float64)
    return sums_by_group(nearest, len(centres), X), sizes
