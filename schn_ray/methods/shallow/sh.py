"""SH: Spectral Hashing, the slowest waves along the principal axes.

Weiss, Torralba and Fergus, NIPS 2008. Codes with balanced, uncorrelated bits that keep similar rows
together are, relaxed, the first eigenfunctions of a uniform box along the principal axes. The
paper's product over axes is one factor here, as its candidates have one frequency each that is not
0 (tested bit for bit). An axis that is constant but for rounding is dropped, which is ours. Nothing
is drawn. One outlier widens a range, and bits are not balanced; both are so as published.
"""

from __future__ import annotations

import numpy as np

from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.preparation import principal_axes

_SMALLEST_RANGE = 1e-9  # of the largest


class ShConfig(ShallowConfig):
    """Settings of SH."""


class Sh(ShallowFit[ShConfig]):
    """A bit is the sign of cos(omega (v_j - lo_j)) on a principal axis j. Three passes."""

    Config = ShConfig
    paper = Paper("Spectral Hashing", "NIPS 2008")

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Compute axes, their ranges and the K lowest frequencies; the first round is the last."""
        prepared = self.prepared(rows, round)
        first, P = principal_axes(prepared, self.bits)
        shift = first.mean @ P
        low, high = prepared.reduce(
            lambda X, _: ((V := X @ P.astype(X.dtype) - shift).min(axis=0), V.max(axis=0)),
            np.minimum,
            np.maximum,
        )
        axis, omega = lowest_frequencies(high - low, self.bits)
        W = P[:, axis] * omega
        t = omega * low[axis] + first.mean @ W
        self.head = HashFunction(
            self.mean, self.config.unit, None, W, t, self.bits, activation="cos"
        )
        return True


def lowest_frequencies(ranges: Array, bits: int) -> tuple[Rows, Array]:
    """Return the axes and the frequencies of the K slowest waves.

    Candidates are omega = q pi / R_j for q = 1 .. ceil((K + 1) R_j / max R) - 1; of equal ones the
    lower axis is first.

    Args:
        ranges: of the rows along each axis, R [r].
        bits: K.
    """
    widest = ranges.max()
    axes, frequencies = [], []
    for j, width in enumerate(ranges):
        if width > _SMALLEST_RANGE * widest:
            modes = np.arange(1, int(np.ceil((bits + 1) * width / widest)))
            axes.append(np.full(len(modes), j))
            frequencies.append(modes * np.pi / width)
    omega = np.concatenate(frequencies)
    lowest = np.argsort(omega, kind="stable")[:bits]
    return np.concatenate(axes)[lowest], omega[lowest]
