"""The first passes over features: what is refused, their mean, and their second moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import Rows
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, Sums
from schn_ray.methods.shallow.rotations import prepare_features, scatter


def mean_of_rows(rows: FeatureRows) -> Array:
    """Return the mean of all rows [d].

    Args:
        rows: features as they come.

    Raises:
        SchnRayError: a feature is NaN or infinite, or all rows are equal: nothing to hash.
    """

    def sums(X: Shard, numbers: Rows) -> Sums:
        wrong = numbers[~np.isfinite(X).all(axis=1)]
        first = np.array([wrong[0] if len(wrong) else np.inf])
        return X.sum(axis=0, dtype=np.float64), first, X.min(axis=0), X.max(axis=0)

    total, first, low, high = rows.reduce(sums, np.add, np.minimum, np.minimum, np.maximum)
    if np.isfinite(first[0]):
        raise SchnRayError(
            f"row {int(first[0])} has a feature that is NaN or infinite; expected finite numbers"
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
        X = X.astype(np.float64, copy=False)
        return X.sum(axis=0), X.T @ X

    return Moments(rows.count, *rows.sum(sums))
