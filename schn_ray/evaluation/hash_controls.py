"""Controls that hash the features without labels: LSH, PCA with a random rotation, and ITQ.

Each is fitted on the training rows' features and codes the very rows that the model is measured
on, at as many bits. A model that does not beat ITQ gains nothing by its training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.bits import pack
from schn_ray.methods.shallow.rotations import (
    Floats,
    itq_rotation,
    prepare_features,
    principal_directions,
    random_projection,
    random_rotation,
    scatter,
    sign_products,
)


@dataclass(frozen=True, eq=False)
class LinearHash:
    """A code is the sign of ``prepare_features(features, mean) W - t``; sign(0) = +1.

    Attributes:
        mean: of the training rows' features [d].
        W: [d, K].
        t: [K].
    """

    mean: Floats
    W: Floats
    t: Floats

    def encode(self, features: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return packed codes [n, ceil(K / 8)].

        Args:
            features: [n, d].
        """
        U = prepare_features(features, self.mean) @ self.W - self.t
        return pack(np.where(U >= 0, 1, -1))


def hash_controls(features: NDArray[np.floating], bits: int, seed: int) -> dict[str, LinearHash]:
    """Fit every control that needs no labels.

    Args:
        features: of the training rows [n, d].
        bits: K.
        seed: of the projection and of the first rotation.

    Returns:
        ``itq``, ``pca_rotation`` and ``lsh``. Where all rows are equal there is nothing to fit,
        and there are none.
    """
    if (features == features[0]).all():
        return {}
    mean = features.mean(axis=0, dtype=np.float64)
    X = prepare_features(features, mean)
    total = X.sum(axis=0)
    directions = principal_directions(scatter(len(X), total, X.T @ X), bits)
    P, offset = directions.P, total / len(X)
    V = (X - offset) @ P
    start = random_rotation(P.shape[1], bits, seed)
    energy = float(directions.energy.sum())
    learned = itq_rotation(lambda R: sign_products(V, R), start, len(V), energy)
    rotated = {"itq": P @ learned.R, "pca_rotation": P @ start}
    W = random_projection(features.shape[1], bits, seed)
    return {name: LinearHash(mean, W, offset @ W) for name, W in rotated.items()} | {
        "lsh": LinearHash(mean, W, np.zeros(bits))
    }
