"""Bits of a random rotation of all dimensions, as vector search engines make them.

RaBitQ (Gao and Long, SIGMOD 2024) takes the signs of centred unit rows after a random rotation, a
bit a dimension. Ours: any number of bits. With fewer bits than dimensions the rotated row is cut;
with more, the rotation has orthonormal rows. Its estimator of distances, which needs two numbers
more a row, is not part of a hash.
"""

from __future__ import annotations

import numpy as np

from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.rotations import random_rotation


class RabitqConfig(ShallowConfig):
    """Settings of the bits of a random rotation."""


class Rabitq(ShallowFit[RabitqConfig]):
    """W [d, K] with orthonormal columns, or rows if K > d; t = 0. One pass."""

    Config = RabitqConfig
    paper = Paper("RaBitQ", "SIGMOD 2024")

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Compute the mean and draw the rotation; the first round is the last."""
        self.prepared(rows, round)
        d, K = rows.width, self.bits
        W = random_rotation(d, K, self.seed) if d <= K else random_rotation(K, d, self.seed).T
        self.head = self.linear_head(W, np.zeros(K))
        return True
