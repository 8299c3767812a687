"""SDH: Supervised Discrete Hashing, codes that a linear classifier reads labels from; FSDH.

Shen, Shen, Liu and Shen, CVPR 2015. The paper's: min ||Y - B W_c||^2 + lambda ||W_c||^2 + nu ||B -
Phi P||^2 over codes, classifier and regression in turn; codes bit by bit. Ours: each step of the
codes starts from the present ones, so that the objective never rises (released: from 0). The weight
nu must be small, or it ties the codes to the regression of their random start.

FSDH: Gui, Liu, Sun, Tao and Tan, TPAMI 2018. The abstract's idea, with equations derived here: min
||B - Y W_c||^2 + lambda ||W_c||^2 + nu ||B - Phi P||^2, whose codes need no bit by bit. With one
label a row, it is random codes of the classes with a regression, and does as well as SDH.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import row_signs
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, ShardState, Sums
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit
from schn_ray.methods.shallow.label_algebra import check_pairs, class_matrix, set_sums
from schn_ray.methods.shallow.ridge import ridge_solution


class SdhConfig(FeatureConfig):
    """Settings of SDH and FSDH.

    Attributes:
        rounds: alternations of codes, classifier and regression.
        classifier: ridge of the classifier, the paper's lambda.
        nu: weight of the regression.
        sweeps: passes over the bits in a step of the codes.
    """

    rounds: Count = 5
    classifier: Weight = 1.0
    nu: Annotated[Weight, Searched(log=(1e-7, 1e-3))] = 1e-5
    sweeps: Count = 10


class FsdhConfig(SdhConfig):
    """Settings of FSDH."""


class Sdh(FeatureFit[SdhConfig]):
    """Codes, classifier and regression in turn. 4 + T passes.

    Attributes:
        B: learned codes of the rows, int8.
    """

    Config = SdhConfig
    paper = Paper("Supervised Discrete Hashing", "CVPR 2015")
    labels = "multi"

    def __init__(self, config: SdhConfig, bits: int, seed: int = 0) -> None:
        super().__init__(config, bits, seed)
        self.B = ShardState()

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the first one starts from random codes."""
        known, *_ = check_pairs(labels)
        Phi = self.features(rows, round)
        if round == 1:
            self._regress(Phi.sum(lambda F, numbers: self._drawn(F, numbers, known)))
        Y, P1, (BB, M, _, _) = class_matrix(known), self.P1, self.sums
        W_c = self._classifier(Y, known.sizes, BB, M)

        def step(F: Shard, numbers: Rows) -> Sums:
            regressed = F @ P1[:-1] + P1[-1]
            of_set = self._pull(Y, W_c)[known.set_of_row[numbers]]
            self.B[numbers] = self._solved(self.B[numbers], of_set, regressed, W_c)
            return self._sums(F, numbers, known)

        self._regress(Phi.sum(step))
        self.objective = self._objective(Y, known.sizes, W_c)
        self.head = self.linear_head(self.P1[:-1], -self.P1[-1], self.kernel)
        return round >= self.config.rounds

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return B of the rows of one shard [m, K]."""
        return self.B[numbers]

    def _drawn(self, F: Shard, numbers: Rows, labels: LabelSets) -> Sums:
        self.B[numbers] = row_signs(self.seed, "codes", numbers, self.bits)
        return self._sums(F, numbers, labels)

    def _sums(self, F: Shard, numbers: Rows, labels: LabelSets) -> Sums:
        """Return B^T B, the sums of B by label set, Phi^T B, and the sum of B."""
        B = self.B[numbers].astype(np.float64)
        return B.T @ B, set_sums(labels, numbers, B), F.T @ B, B.sum(axis=0)

    def _regress(self, sums: Sums) -> None:
        """Set P of the regression on [Phi, 1]; its last row is the intercept, penalised too."""
        self.sums = sums
        first = self.moments
        gram = np.block([[first.products, first.total[:, None]], [first.total, float(first.count)]])
        self.products = np.vstack([sums[2], sums[3]])
        self.P1 = ridge_solution(gram, self.products, self.config.ridge)
        self.residual = float(
            first.count * self.bits
            - 2 * np.sum(self.P1 * self.products)
            + np.sum(self.P1 * (gram @ self.P1))
        )

    def _classifier(self, Y: Array, sizes: Rows, BB: Array, M: Array) -> Array:
        """Return W_c [K, C] = (B^T B + lambda I)^-1 B^T Y."""
        return ridge_solution(BB, M.T @ Y, self.config.classifier)

    def _pull(self, Y: Array, W_c: Array) -> Array:
        """Return what the labels of each set ask of its codes [L, K]."""
        return Y @ W_c.T

    def _solved(self, B: Shard, of_set: Array, regressed: Array, W_c: Array) -> Shard:
        Q = self.config.nu * regressed + of_set
        return solved_bit_by_bit(B, Q, W_c @ W_c.T, self.config.sweeps)

    def _objective(self, Y: Array, sizes: Rows, W_c: Array) -> float:
        BB, M, _, _ = self.sums
        misfit = np.sum(sizes @ Y) - 2 * np.sum(W_c * (M.T @ Y)) + np.sum(W_c * (BB @ W_c))
        rest = self.config.classifier * np.sum(W_c**2) + self.config.nu * self.residual
        return float(misfit + rest)


class Fsdh(Sdh):
    """Codes in one go: B = sign(Y W_c + nu Phi P), W_c = (Y^T Y + lambda I)^-1 Y^T B."""

    Config = FsdhConfig
    paper = Paper("Fast Supervised Discrete Hashing", "TPAMI 2018")
    labels = "multi"

    def _classifier(self, Y: Array, sizes: Rows, BB: Array, M: Array) -> Array:
        YY = Y.T @ (sizes[:, None] * Y)
        return ridge_solution(YY, Y.T @ M, self.config.classifier)

    def _pull(self, Y: Array, W_c: Array) -> Array:
        return Y @ W_c

    def _solved(self, B: Shard, of_set: Array, regressed: Array, W_c: Array) -> Shard:
        return np.where(of_set + self.config.nu * regressed >= 0, 1, -1).astype(np.int8)

    def _objective(self, Y: Array, sizes: Rows, W_c: Array) -> float:
        M = self.sums[1]
        YW = Y @ W_c
        count = self.moments.count
        misfit = count * self.bits - 2 * np.sum(M * YW) + np.sum(sizes[:, None] * YW**2)
        rest = self.config.classifier * np.sum(W_c**2) + self.config.nu * self.residual
        return float(misfit + rest)


def solved_bit_by_bit(B: Shard, Q: Array, G: Array, sweeps: int) -> Shard:
    """Return codes that maximise 2 tr(B^T Q) - tr(B G B^T), bit by bit: each the best given others.

    Args:
        B: present codes [n, K].
        Q: [n, K].
        G: [K, K], symmetric and positive.
        sweeps: over all bits, at most; fewer if nothing changes.
    """
    after = B.astype(np.float64).T.copy()
    others = G - np.diag(np.diag(G))
    columns = np.ascontiguousarray(Q.T)
    for _ in range(sweeps):
        before = after.copy()
        for k, row in enumerate(others):
            after[k] = np.where(columns[k] - row @ after >= 0, 1.0, -1.0)
        if np.array_equal(before, after):
            break
    return after.T.astype(np.int8)
