"""The first passes over features: what is refused, their mean, and their second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import Rows
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, Sums, pieces_of
from schn_ray.methods.shallow.rotations import prepare_features, scatter


def mean_of_rows(rows: FeatureRows) -> Array:
    """Return the mean of all rows [d].

    Args:
        rows: features as they come.

    Raises:
        SchnRayError: a feature is NaN or infinite, or all rows are equal: nothing to hash.
    """

    def sums(X: Shard, numbers: Rows) -> Sums:
        with np.errstate(invalid="ignore"):  # the sum of infinities, which is refused
            total = sum(piece.sum(axis=0) for piece in pieces_of(X))
        bad = not np.isfinite(total).all()  # seldom, so rows are looked at only then
        wrong = numbers[~np.isfinite(X).all(axis=1)] if bad else numbers[:0]
        return total, wrong[0] if len(wrong) else np.inf, X.min(axis=0), X.max(axis=0)

    total, first, low, high = rows.reduce(sums, np.add, np.minimum, np.minimum, np.maximum)
    if np.isfinite(first):
        raise SchnRayError(
            f"row {int(first)} has a feature that is NaN or infinite; expected finite numbers"
        )
    if np.array_equal(low, high):
        raise SchnRayError(f"all {rows.count} rows of features are equal, so there is no hash")
    return total / rows.count


def prepared_rows(rows: FeatureRows, mean: Array, unit: bool = True) -> FeatureRows:
    """Return centred rows, of length 1 by default, as float64.

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
    """Return the moments of rows, in one pass.

    Args:
        rows: features [n, d].
    """

    def sums(X: Shard, _: Rows) -> Sums:
        total, products = np.zeros(rows.width), np.zeros((rows.width, rows.width))
        for piece in pieces_of(X):
            total += piece.sum(axis=0)
            products += piece.T @ piece
        return total, products

    return Moments(rows.count, *rows.sum(sums))
