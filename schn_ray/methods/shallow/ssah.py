"""SSAH: Scalable Supervised Asymmetric Hashing, a classifier and an embedding of all pairs.

Zhang, Lai, Huang, Wong, Xie, Liu and Shao, TIP 2019. The paper's, from its abstract and a reader's
notes: the objective, asymmetric factors of the similarity, a robust norm by reweighting, and a
rotation by Procrustes whose quadratic term is dropped. The formulas of the steps are derived here,
and checked by gradients. Ours, as the published weights are unknown: weights free of n by 1/n and
root mean squares, all defaults, and the scale of the features, ||Phi||^2 = 0.1 n K.

  min (1/n) ||K S01 - E T^T||^2 + l1 n sum_k rms_k(E - B)^p
      + l2 (n sum_j rms_j(Phi - V U^T)^p + mu ||B - T||^2),    E = Y W_c, T = V R^T

Keep mu l2 at most l1, or B stays at its random start.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import row_signs
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, ShardState, Sums
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit
from schn_ray.methods.shallow.label_algebra import (
    check_pairs,
    class_matrix,
    set_sums,
    shared_rows,
)
from schn_ray.methods.shallow.rotations import principal_directions, procrustes, random_rotation

_ENERGY = 0.1  # ||Phi||^2 / (n K)
_SMALLEST_RMS = 1e-6
_RIDGE = 1e-6  # of Y^T Y, times n


class SsahConfig(FeatureConfig):
    """Settings of SSAH.

    Attributes:
        rounds: in each, every unknown is solved for in turn.
        l1: weight of the classifier's fit to the codes.
        l2: weight of the embedding of the features.
        mu: weight of the rotation, within l2; mu l2 should be at most l1.
        p: power of the robust norm.
    """

    rounds: Count = 10
    l1: Weight = 1.0
    l2: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    mu: Weight = 1.0
    p: float = Field(default=1.0, gt=0, le=2)


class Ssah(FeatureFit[SsahConfig]):
    """Classifier, embedding and codes in turn. 4 + 3 T passes.

    Attributes:
        B: learned codes of the rows, int8.
        V: embedding of the rows, float32.
    """

    Config = SsahConfig
    paper = Paper("Scalable Supervised Asymmetric Hashing", "TIP 2019")
    labels = "multi"

    def __init__(self, config: SsahConfig, bits: int, seed: int = 0) -> None:
        super().__init__(config, bits, seed)
        self.B, self.V = ShardState(), ShardState()
        self.D, self.W_c = np.ones(bits), np.empty((0, bits))

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the last one also regresses."""
        known, pairs, _ = check_pairs(labels)
        raw = self.features(rows, round)
        Phi = raw.map(self._scaled, raw.width)
        if round == 1:
            self._start(Phi, known)
        self.Y, self.A, self.sizes = class_matrix(known), shared_rows(known), known.sizes
        self.n = rows.count
        self._reweight()
        self._fit_classifier()
        self.U = procrustes(self.H[:, None] * self.PV)
        Phi.each(lambda F, numbers: self._embed(F, numbers, known))
        self._sum_embedding(Phi, known)
        self._rotate()
        self._fit_codes(rows.without_features(), known)
        self.objective = self._objective(pairs)
        if round < self.config.rounds:
            return False
        self.head = self.regressed(*raw.sum(self._targets))
        return True

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return B of the rows of one shard [m, K]."""
        return self.B[numbers]

    def _scaled(self, F: Shard) -> Array:
        energy = np.trace(self.moments.scatter)
        scale = np.sqrt(_ENERGY * self.moments.count * self.bits / energy)
        return np.asarray((F - self.moments.mean) * scale)

    def _start(self, Phi: FeatureRows, labels: LabelSets) -> None:
        """B random, U the principal axes, V = Phi U, R random."""
        self.U = principal_directions(self.moments.scatter, self.bits).P
        check_rank(self.bits, self.U.shape[1])
        self.R = random_rotation(self.bits, self.bits, self.seed)

        def draw(F: Shard, numbers: Rows) -> None:
            self.B[numbers] = row_signs(self.seed, "codes", numbers, self.bits)
            self.V[numbers] = (F @ self.U).astype(np.float32)

        Phi.each(draw)
        self._sum_embedding(Phi, labels)
        (self.MB,) = Phi.without_features().sum(
            lambda _, numbers: (set_sums(labels, numbers, self.B[numbers]),)
        )
        scatter = self.moments.scatter
        self.phi_squares = np.diag(scatter) * (
            _ENERGY * self.moments.count * self.bits / np.trace(scatter)
        )

    def _sum_embedding(self, Phi: FeatureRows, labels: LabelSets) -> None:
        """Set the sums of V by label set [L, K], V^T V, Phi^T V [m, K] and B^T V."""

        def sums(F: Shard, numbers: Rows) -> Sums:
            V = self.V[numbers].astype(np.float64)
            return set_sums(labels, numbers, V), V.T @ V, F.T @ V, self.B[numbers].T @ V

        self.MV, self.VV, self.PV, self.BV = Phi.sum(sums)

    def _reweight(self) -> None:
        """Set the weights of the robust norm, D of bits [K] and H of kernel dimensions [m]."""
        p, n = self.config.p, self.n
        if len(self.W_c):  # not in the first round
            self.D = p / 2 * _rms(self._classifier_misfits(), n) ** (p - 2)
        self.H = p / 2 * _rms(self._embedding_misfits(), n) ** (p - 2)
        if p == 2:
            self.D, self.H = np.ones_like(self.D), np.ones_like(self.H)

    def _classifier_misfits(self) -> Array:
        """Return ||E - B||^2 of each bit [K]."""
        E = self.Y @ self.W_c
        of_E = np.sum(self.sizes[:, None] * E * E, axis=0)
        return np.asarray(of_E - 2 * np.sum(E * self.MB, axis=0) + self.n)

    def _embedding_misfits(self) -> Array:
        """Return ||Phi - V U^T||^2 of each kernel dimension [m]."""
        cross, fitted = np.sum(self.PV * self.U, axis=1), np.sum((self.U @ self.VV) * self.U, 1)
        return np.asarray(self.phi_squares - 2 * cross + fitted)

    def _fit_classifier(self) -> None:
        K, n, l1 = self.bits, self.n, self.config.l1
        AT = self.A.T @ self.MV @ self.R.T
        TT = self.R @ self.VV @ self.R.T
        YY = self.Y.T @ (self.sizes[:, None] * self.Y) + _RIDGE * n * np.eye(self.Y.shape[1])
        left = np.linalg.solve(YY, K * AT / n + l1 * (self.Y.T @ self.MB) * self.D)
        self.W_c = np.linalg.solve(TT / n + l1 * np.diag(self.D), left.T).T

    def _embed(self, F: Shard, numbers: Rows, labels: LabelSets) -> None:
        K, n, l2, mu = self.bits, self.n, self.config.l2, self.config.mu
        E = self.Y @ self.W_c
        EE = E.T @ (self.sizes[:, None] * E)
        HU = self.H[:, None] * self.U
        curvature = self.R.T @ EE @ self.R / n + l2 * self.U.T @ HU + l2 * mu * np.eye(K)
        of_set = K * (self.A @ self.W_c) @ self.R / n
        pull = of_set[labels.set_of_row[numbers]] + l2 * (F @ HU)
        pull += l2 * mu * self.B[numbers] @ self.R
        self.V[numbers] = np.linalg.solve(curvature, pull.T).T.astype(np.float32)

    def _rotate(self) -> None:
        AV = self.A.T @ self.MV
        self.R = procrustes(
            self.bits * self.W_c.T @ AV / self.n + self.config.l2 * self.config.mu * self.BV
        )

    def _fit_codes(self, state: FeatureRows, labels: LabelSets) -> None:
        of_set = self.config.l1 * (self.Y @ self.W_c) * self.D
        weight = self.config.l2 * self.config.mu

        def code(_: Shard, numbers: Rows) -> tuple[Array, Array]:
            V = self.V[numbers].astype(np.float64)
            pull = of_set[labels.set_of_row[numbers]] + weight * V @ self.R.T
            B = np.where(pull >= 0, 1.0, -1.0)
            self.B[numbers] = B.astype(np.int8)
            return set_sums(labels, numbers, B), B.T @ V

        self.MB, self.BV = state.sum(code)

    def _objective(self, pairs: int) -> float:
        n, K, c = self.n, self.bits, self.config
        E, TT = self.Y @ self.W_c, self.R @ self.VV @ self.R.T
        EE = E.T @ (self.sizes[:, None] * E)
        cross = np.sum((self.A @ self.W_c) * (self.MV @ self.R.T))
        similarity = (K * K * pairs - 2 * K * cross + np.sum(EE * TT)) / n
        robust = n * np.sum(_rms(self._classifier_misfits(), n) ** c.p)
        embedding = n * np.sum(_rms(self._embedding_misfits(), n) ** c.p)
        ties = n * K - 2 * np.sum(self.BV * self.R) + np.trace(self.VV)
        return float(similarity + c.l1 * robust + c.l2 * (embedding + c.mu * ties))

    def _targets(self, F: Shard, numbers: Rows) -> tuple[Array, Array]:
        B = self.B[numbers].astype(np.float64)
        return F.T @ B, B.sum(axis=0)


def check_rank(bits: int, rank: int) -> None:
    """Refuse more bits than features have dimensions.

    Args:
        bits: K.
        rank: dimensions in which the features differ.

    Raises:
        SchnRayError: K is larger.
    """
    if bits > rank:
        raise SchnRayError(
            f"{bits} bits, and features that differ in {rank} dimensions; expected as many bits or "
            "fewer. Set method.anchors higher, or bits lower"
        )


def _rms(squares: Array, n: int) -> Array:
    return np.maximum(np.sqrt(np.maximum(squares, 0) / n), _SMALLEST_RMS)
