"""Projections and rotations of features: what LSH, PCA with a random rotation, and ITQ consist of.

All functions are pure. What is learned from rows comes from sums over them (``scatter``,
``sign_products``), so the rows may be spread over shards: sums that are added in the order of the
shards give the same result on any number of machines. Rows of float32 are prepared and multiplied
in float32, a thousand at a time, and all else is float64: half the time, and no other codes but
where a value rounds to 0.

Sources. LSH: Charikar, STOC 2002, of the family that Gionis, Indyk and Motwani named (VLDB 1999).
ITQ: Gong and Lazebnik, CVPR 2011; with Gordo and Perronnin, TPAMI 2013. The papers' are the
Gaussian directions, PCA followed by a rotation, and the two alternating steps. Ours are unit rows,
the signs of eigenvectors, the rank, rotations with more bits than directions, and the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError

Floats = NDArray[np.float64]

ROUNDS = 50  # of ITQ, as published
ROUNDING = 1e-10  # of the first eigenvalue of float64 products: below it there is only rounding
_PROJECTION, _ROTATION = 0, 1  # purposes of a seed


def prepare_features(
    features: NDArray[np.floating], mean: Floats, unit: bool = True
) -> NDArray[np.floating]:
    """Return centred rows X [n, d], of length 1 by default; in float32 unless they are float64.

    The papers centre; unit rows are ours. A row that equals the mean stays 0.

    Args:
        features: [n, d].
        mean: of the training rows [d].
        unit: divide each row by its length.
    """
    dtype = np.promote_types(features.dtype, np.float32)
    X = features - mean.astype(dtype)
    if unit:
        length = np.sqrt(np.einsum("ij,ij->i", X, X))
        length[length == 0] = 1
        X /= length[:, None]
    return X


def random_projection(width: int, bits: int, seed: int) -> Floats:
    """Return the directions of LSH, W ~ N(0, 1) [d, K]; a code is sign(X W).

    Two rows differ in a bit with probability angle / pi (Charikar 2002).

    Args:
        width: d.
        bits: K.
        seed: of the draw.
    """
    return np.random.default_rng([seed, _PROJECTION]).standard_normal((width, bits))


def random_rotation(rank: int, bits: int, seed: int) -> Floats:
    """Return a random R [r, K] with orthonormal rows; it is a rotation where r = K.

    It is uniformly distributed: the QR decomposition of Gaussian numbers, with the signs that make
    it unique (Mezzadri, 2007).

    Args:
        rank: r, at most K.
        bits: K.
        seed: of the draw.
    """
    gaussian = np.random.default_rng([seed, _ROTATION]).standard_normal((bits, bits))
    Q, upper = np.linalg.qr(gaussian)
    return np.asarray((Q * _signs(np.diagonal(upper)))[:rank])


def scatter(rows: int, total: Floats, products: Floats) -> Floats:
    """Return (X - mean)^T (X - mean) [d, d] from sums over rows.

    Args:
        rows: n.
        total: sum of the rows [d].
        products: X^T X [d, d].
    """
    return np.asarray(products - np.outer(total, total) / rows)


@dataclass(frozen=True, eq=False)
class PrincipalDirections:
    """The directions of largest variance, and how much of it each one has.

    Attributes:
        P: [d, r], orthonormal columns, r = min(K, rank).
        energy: eigenvalues of the scatter [r], falling; their sum is ||(X - mean) P||_F^2.
    """

    P: Floats
    energy: Floats


def principal_directions(
    scatter_of_rows: Floats, bits: int, rounding: float = ROUNDING
) -> PrincipalDirections:
    """Return the first K eigenvectors of a scatter, or as many as it has.

    Eigenvectors have no sign of their own: here the entry that is largest in size is positive, and
    of equal ones the first.

    Args:
        scatter_of_rows: [d, d]; see ``scatter``.
        bits: K. With more bits than the rank, the directions are r < K, and a rotation [r, K] with
            orthonormal rows still gives K bits.
        rounding: eigenvalues up to this share of the first one are none.

    Raises:
        SchnRayError: all rows are equal, so there is no direction.
    """
    eigenvalues, vectors = np.linalg.eigh(scatter_of_rows)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    if not eigenvalues[0] > 0:
        raise SchnRayError("all rows of features are equal; expected at least two that differ")
    rank = int(np.sum(eigenvalues > rounding * eigenvalues[0]))
    P = vectors[:, : min(bits, rank)]
    largest = np.abs(P).argmax(axis=0)
    P = P * _signs(P[largest, np.arange(P.shape[1])])
    return PrincipalDirections(P, eigenvalues[: P.shape[1]].copy())


def procrustes(M: Floats) -> Floats:
    """Return the R that maximises tr(R^T M) among those with orthonormal columns, or rows.

    ``R = P Q^T`` for the thin singular value decomposition ``M = P s Q^T`` (Schoenemann 1966).

    Args:
        M: [r, K]. R has orthonormal columns where M is square or tall, else orthonormal rows.

    Example:
        >>> procrustes(np.array([[0.0, 2.0], [-3.0, 0.0]])).tolist()
        [[0.0, 1.0], [-1.0, 0.0]]
    """
    left, _, right = np.linalg.svd(M, full_matrices=False)
    return np.asarray(left @ right)


def sign_products(V: NDArray[np.floating], R: Floats) -> Floats:
    """Return V^T sign(V R) [r, K], all that a round of ITQ needs; sign(0) = +1.

    Products of disjoint rows add up to that of all of them.

    Args:
        V: centred rows in the principal directions [n, r].
        R: [r, K].
    """
    B = V @ R.astype(V.dtype)
    B += 0  # there is a -0, whose sign is -1
    np.copysign(V.dtype.type(1), B, out=B)
    return (V.T @ B).astype(np.float64)


def quantisation_loss(rows: int, energy: float, products: Floats, R: Floats) -> float:
    """Return ||B - V R||_F^2 from sums: n K + ||V||_F^2 - 2 tr(R^T V^T B).

    It holds for R with orthonormal rows, as ||V R|| = ||V|| then.

    Args:
        rows: n.
        energy: ||V||_F^2.
        products: V^T B [r, K].
        R: [r, K].
    """
    return float(rows * R.shape[1] + energy - 2 * np.sum(R * products))


def _signs(values: NDArray[np.floating]) -> Floats:
    return np.where(values >= 0, 1.0, -1.0)
