"""The first passes over features: what is refused, their mean, and their second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import Rows
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, Sums, pieces_of
from schn_ray.methods.shallow.rotations import prepare_features, principal_directions, scatter

_SINGLE_ROUNDING = 1e-6  # of the first eigenvalue of float32 products: below it there is no more


def mean_of_rows(rows: FeatureRows) -> Array:
    """Return the mean of all rows [d].

    Args:
        rows: features as they come.

    Raises:
        SchnRayError: a feature is NaN or infinite, or all rows are equal: nothing to hash.
    """

    one = rows.take(np.zeros(1, np.int64))

    def sums(X: Shard, numbers: Rows) -> Sums:
        with np.errstate(invalid="ignore"):  # the sum of infinities, which is refused
            total = sum(piece.astype(np.float64).sum(axis=0) for piece in pieces_of(X))
        bad = not np.isfinite(total).all()  # seldom, so rows are looked at only then
        wrong = numbers[~np.isfinite(X).all(axis=1)] if bad else numbers[:0]
        differ = any((piece != one).any() for piece in pieces_of(X))
        return total, wrong[0] if len(wrong) else np.inf, float(differ)

    total, first, differ = rows.reduce(sums, np.add, np.minimum, np.maximum)
    if np.isfinite(first):
        raise SchnRayError(
            f"row {int(first)} has a feature that is NaN or infinite; expected finite numbers"
        )
    if not differ:
        raise SchnRayError(f"all {rows.count} rows of features are equal, so there is no hash")
    return total / rows.count


def prepared_rows(rows: FeatureRows, mean: Array, unit: bool = True) -> FeatureRows:
    """Return centred rows, of length 1 by default; see ``prepare_features``.

    Args:
        rows: features as they come.
        mean: of the rows [d].
        unit: divide each row by its length.
    """
    return rows.map(lambda X: prepare_features(X, mean, unit), rows.width)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums of rows and of their products.

    Attributes:
        count: n.
        total: sum of the rows [d].
        products: X^T X [d, d].
    """

    count: int
    total: Array
    products: Array

    @property
    def mean(self) -> Array:
        """The mean of the rows [d]."""
        return self.total / self.count

    @property
    def scatter(self) -> Array:
        """(X - mean)^T (X - mean) [d, d]."""
        return scatter(self.count, self.total, self.products)


def moments(rows: FeatureRows) -> Moments:
    """Return the moments of rows, in one pass, in float64: a regression needs all of it.

    Args:
        rows: features [n, d].
    """
    return Moments(rows.count, *rows.sum(lambda X, _: _sums(X, np.float64)))


def principal_axes(rows: FeatureRows, bits: int) -> tuple[Moments, Array]:
    """Return the moments of rows and their first principal directions P [d, r], r = min(K, rank).

    A thousand rows are multiplied as they are, in float32 most often, and sums of them in float64.

    Args:
        rows: features [n, d].
        bits: K.

    Raises:
        SchnRayError: see ``principal_directions``.
    """
    first = Moments(rows.count, *rows.sum(lambda X, _: _sums(X, X.dtype)))
    return first, principal_directions(first.scatter, bits, _SINGLE_ROUNDING).P


def _sums(X: Shard, dtype: DTypeLike) -> Sums:
    """Return the sum of rows and of their products, whose factors are of a type."""
    width = X.shape[1]
    total, products = np.zeros(width), np.zeros((width, width))
    for piece in pieces_of(X):
        total += piece.sum(axis=0, dtype=np.float64)
        factor = piece.astype(dtype, copy=False)
        products += factor.T @ factor
    return total, products
