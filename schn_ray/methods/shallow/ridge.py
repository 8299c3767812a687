"""Ridge regression of codes on features: how a method codes a row that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from schn_ray.methods.shallow.feature_rows import Array
from schn_ray.methods.shallow.preparation import Moments


@dataclass(frozen=True, eq=False)
class Regression:
    """W [d', K] and t [K] of a head F W - t."""

    W: Array
    t: Array


def ridge_solution(A: Array, B: Array, ridge: float) -> Array:
    """Return (A + ridge I)^-1 B.

    Args:
        A: [d', d'], symmetric and positive.
        B: [d', K].
        ridge: added to the diagonal.
    """
    regular = A.copy()
    regular[np.diag_indices_from(regular)] += ridge
    return np.asarray(cho_solve(cho_factor(regular), B))


def regress(features: Moments, products: Array, total: Array, ridge: float) -> Regression:
    """Regress targets on features, with an intercept that is not penalised.

    ``W = (F^T F + lambda I)^-1 F^T B`` for centred F and B, and ``t = mean(F) W - mean(B)``.

    Args:
        features: moments of F [n, d'], not centred.
        products: F^T B [d', K], not centred.
        total: sum of the rows of B [K].
        ridge: lambda.
    """
    centred = products - np.outer(features.mean, total)
    W = ridge_solution(features.scatter, centred, ridge)
    return Regression(W, features.mean @ W - total / features.count)
