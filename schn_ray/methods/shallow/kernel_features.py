"""Features of rows from their distances to anchors: a Gaussian kernel, and an anchor graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.methods.shallow.anchors import random_anchors, squared_distances
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard


@dataclass(frozen=True, eq=False)
class Kernel:
    """phi_j(x) = exp(-||x - a_j||^2 / w).

    Attributes:
        anchors: A [m, d], prepared as the rows are.
        width: w.
    """

    anchors: Array
    width: float

    def __call__(self, X: Shard) -> NDArray[np.float32]:
        """Return Phi [n, m].

        Args:
            X: prepared features [n, d].
        """
        exponent = squared_distances(X, self.anchors)
        exponent /= -self.width
        return np.exp(exponent, out=exponent).astype(np.float32, copy=False)

    def of(self, rows: FeatureRows) -> FeatureRows:
        """Return the kernel features of rows, computed once where memory allows.

        Args:
            rows: prepared features.
        """
        return rows.map(self, len(self.anchors), retain=True)


def random_kernel(rows: FeatureRows, anchors: int, seed: int) -> Kernel:
    """Return a kernel at random rows, as wide as rows are far from anchors in the mean.

    ``w = 2 mean_ij ||x_i - a_j||^2``, as in the released code of KSH and SGH.

    Args:
        rows: prepared features.
        anchors: m, at most.
        seed: of the draw.
    """
    A = random_anchors(rows, anchors, seed)
    first = moments_of_lengths(rows)
    lengths = np.einsum("ij,ij->i", A, A).mean()
    return Kernel(A, float(2 * (first[1] + lengths - 2 * first[0] @ A.mean(axis=0))))


def moments_of_lengths(rows: FeatureRows) -> tuple[Array, float]:
    """Return the mean row [d] and the mean of the squared lengths.

    Args:
        rows: features.
    """
    total, squares = rows.sum(
        lambda X, _: (X.sum(axis=0, dtype=float), np.sum(np.einsum("ij,ij->i", X, X), dtype=float))
    )
    return total / rows.count, float(squares) / rows.count


@dataclass(frozen=True, eq=False)
class AnchorGraph:
    """z_ij: how much of row i lies at anchor j, one of its s nearest; each row's sum is 1.

    z_ij is proportional to exp(-||x_i - a_j||^2 / w) at the s nearest anchors, and 0 elsewhere (Liu
    et al., ICML 2011).

    Attributes:
        anchors: A [m, d], prepared as the rows are.
        width: w, sigma^2 in the paper.
        nearest: s.
    """

    anchors: Array
    width: float
    nearest: int

    def sparse(self, X: Shard) -> csr_array:
        """Return Z [n, m].

        Args:
            X: prepared features [n, d].
        """
        columns, distances = nearest_anchors(X, self.anchors, self.nearest)
        # the same z, and the largest is not rounded to 0
        z = np.exp((distances.min(axis=1, keepdims=True) - distances) / self.width)
        z /= z.sum(axis=1, keepdims=True)
        starts = np.arange(0, z.size + 1, z.shape[1])
        return csr_array((z.ravel(), columns.ravel(), starts), shape=(len(X), len(self.anchors)))

    def __call__(self, X: Shard) -> Array:
        """Return Z [n, m], dense.

        Args:
            X: prepared features [n, d].
        """
        return np.asarray(self.sparse(X).toarray())


def nearest_anchors(
    X: Shard, anchors: Array, nearest: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the s nearest anchors of each row, by number, and their squared distances: [n, s].

    Args:
        X: prepared features [n, d].
        anchors: [m, d].
        nearest: s, at most m.
    """
    distances = squared_distances(X, anchors)
    columns = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
    columns = np.sort(columns, axis=1)
    return columns, np.take_along_axis(distances, columns, axis=1).astype(np.float64)
