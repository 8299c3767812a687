"""PCA with a random rotation: the directions of largest variance, their variance spread over bits.

The method that Hashing-Baseline (arXiv 2509.14427) finds hard to beat, and where ITQ starts (Gong
and Lazebnik, CVPR 2011). Ours: more bits than directions, by a rotation with orthonormal rows.
"""

from __future__ import annotations

from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.preparation import principal_axes
from schn_ray.methods.shallow.rotations import random_rotation


class PcaRotationConfig(ShallowConfig):
    """Settings of PCA with a random rotation."""


class PcaRotation(ShallowFit[PcaRotationConfig]):
    """W = P R for principal directions P [d, r] and a random R [r, K]; t = mean W. Two passes."""

    Config = PcaRotationConfig
    paper = Paper("Hashing-Baseline", "arXiv 2509.14427")

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Compute the directions and draw the rotation; the first round is the last."""
        first, P = principal_axes(self.prepared(rows, round), self.bits)
        W = P @ random_rotation(P.shape[1], self.bits, self.seed)
        self.head = self.linear_head(W, first.mean @ W)
        return True
