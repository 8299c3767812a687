"""LSH: random hyperplanes through the mean of the rows.

Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002: a bit is the side of
a random hyperplane on which a row lies, and two rows differ in it with probability angle / pi.
(Gionis, Indyk and Motwani, VLDB 1999, name the family.) Ours: rows are centred and of unit length.
"""

from __future__ import annotations

import numpy as np

from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.rotations import random_projection


class LshConfig(ShallowConfig):
    """Settings of LSH."""


class Lsh(ShallowFit[LshConfig]):
    """W ~ N(0, 1) [d, K], t = 0; nothing is learned but the mean. One pass."""

    Config = LshConfig
    paper = Paper("Similarity estimation techniques from rounding algorithms", "STOC 2002")

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Compute the mean and draw W; the first round is the last."""
        self.prepared(rows, round)
        W = random_projection(rows.width, self.bits, self.seed)
        self.head = self.linear_head(W, np.zeros(self.bits))
        return True
