"""What a shallow method learned, in float64: features in, the codes' real values out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schn_ray.methods.shallow.feature_rows import Array, Shard
from schn_ray.methods.shallow.kernel_features import AnchorGraph, Kernel
from schn_ray.methods.shallow.rotations import prepare_features


@dataclass(frozen=True, eq=False)
class HashFunction:
    """h(x) [K], whose signs are the code of x; sign(0) = +1.

    u = map(prepare(x)) W - t, and h is u (``sign``), cos(u) (``cos``), or both u and the distance
    of |u| from a threshold (``two_layer``), cut to K columns.

    Attributes:
        mean: of the training rows [d].
        unit: divide centred rows by their length.
        map: of prepared features; None is the identity.
        W: [d', K'].
        t: [K'].
        bits: K.
        activation: how u becomes h.
        thresholds: of |u| where u > 0, and elsewhere [2, K'], for ``two_layer``.
    """

    mean: Array
    unit: bool
    map: Kernel | AnchorGraph | None
    W: Array
    t: Array
    bits: int
    activation: Literal["sign", "cos", "two_layer"] = "sign"
    thresholds: Array | None = None

    def __call__(self, X: Shard) -> Array:
        """Return h [n, K] of features as they come.

        Args:
            X: [n, d].
        """
        F: Shard = prepare_features(X, self.mean, self.unit)
        convert: Callable[[Shard], Shard] = self.map or (lambda same: same)
        u = convert(F).astype(np.float64, copy=False) @ self.W - self.t
        if self.activation == "cos":
            return np.asarray(np.cos(u))
        if self.thresholds is not None:
            above = np.abs(u) - np.where(u > 0, self.thresholds[0], self.thresholds[1])
            u = np.concatenate([u, above], axis=1)[:, : self.bits]
        return u

    def codes(self, X: Shard) -> Array:
        """Return the signs of h [n, K].

        Args:
            X: [n, d].
        """
        return np.where(self(X) >= 0, 1.0, -1.0)
