"""ITQ: Iterative Quantisation, a rotation that brings rows close to the corners of a cube; ITQ-CCA.

Gong and Lazebnik, CVPR 2011; with Gordo and Perronnin, TPAMI 2013. The paper's: principal axes (or,
with labels, directions of canonical correlation), and 50 rounds that alternate codes and rotation.
Ours: unit rows; an early end when the codes no longer change; more bits than directions, by a
rotation with orthonormal rows; ridges of ITQ-CCA that are relative; its kernel features, with which
it is the control that no method with labels beats. Directions are multiplied by their correlation,
which is from memory of the paper: a copy of the released code divides, so weak directions count
more.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from scipy.linalg import eigh

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, pieces_of
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit, ShallowConfig, ShallowFit
from schn_ray.methods.shallow.label_algebra import check_pairs, class_matrix, feature_set_sums
from schn_ray.methods.shallow.preparation import Moments, principal_axes
from schn_ray.methods.shallow.ridge import ridge_solution
from schn_ray.methods.shallow.rotations import (
    ROUNDS,
    procrustes,
    quantisation_loss,
    random_rotation,
    sign_products,
)

_SMALLEST_CORRELATION = 1e-8  # squared, of the first


class ItqConfig(ShallowConfig):
    """Settings of ITQ.

    Attributes:
        rounds: alternations of codes and rotation, at most.
    """

    rounds: Count = ROUNDS


class ItqCcaConfig(FeatureConfig):
    """Settings of ITQ-CCA.

    Attributes:
        rounds: alternations of codes and rotation, at most.
        ridge: of the correlation, relative to the mean diagonal, on both sides.
    """

    rounds: Count = ROUNDS
    features: Annotated[Literal["linear", "rbf"], Searched()] = "linear"
    ridge: Annotated[Weight, Searched(log=(1e-6, 1.0))] = 1e-4


class Itq(ShallowFit[ItqConfig]):
    """B = sign(V R) and R = procrustes(V^T B) in turn, which lower ||B - V R||^2. 52 passes."""

    Config = ItqConfig
    paper = Paper("Iterative Quantization", "CVPR 2011, TPAMI 2013")

    rotation: Rotation

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the first one also computes the principal axes."""
        prepared = self.prepared(rows, round)
        if round == 1:
            first, P = principal_axes(prepared, self.bits)
            self.rotation = Rotation(first, P, self.bits, self.seed)
        unchanged = self.rotation.turn(prepared)
        self.objective = self.rotation.loss
        self.head = self.linear_head(*self.rotation.projection())
        return unchanged or round >= self.config.rounds


class ItqCca(FeatureFit[ItqCcaConfig]):
    """ITQ on directions that correlate with the labels, scaled by the correlation. 53 passes."""

    Config = ItqCcaConfig
    paper = Paper("Iterative Quantization", "CVPR 2011, TPAMI 2013")
    labels = "multi"

    rotation: Rotation

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the first one also computes the directions."""
        F = self.features(rows, round)
        if round == 1:
            known, *_ = check_pairs(labels)
            sums = feature_set_sums(F, known)
            P, correlation = canonical_directions(self.moments, sums, known, self.config.ridge)
            P = (P * correlation)[:, : self.bits]
            self.rotation = Rotation(self.moments, P, self.bits, self.seed)
        unchanged = self.rotation.turn(F)
        self.objective = self.rotation.loss
        self.head = self.linear_head(*self.rotation.projection(), self.kernel)
        return unchanged or round >= self.config.rounds


class Rotation:
    """R [r, K], turned round by round towards the codes of V = (F - mean) P.

    Args:
        features: moments of F.
        P: directions [d', r].
        bits: K.
        seed: of the first R.

    Attributes:
        R: [r, K], orthonormal rows.
        loss: ||B - V R||_F^2 after the last turn.
    """

    def __init__(self, features: Moments, P: Array, bits: int, seed: int) -> None:
        self.P, self.mean, self.count = P, features.mean, features.count
        self.energy = float(np.sum((features.scatter @ P) * P))
        self.R = random_rotation(P.shape[1], bits, seed)
        self.loss = np.inf
        self.products: Array | None = None
        self._V: FeatureRows | None = None

    def turn(self, features: FeatureRows) -> bool:
        """Do one round; return whether the codes are those of the round before.

        Args:
            features: F.
        """
        if self._V is None:  # not state: made again after a restart
            self._V = features.map(self._project, self.P.shape[1], retain=True)
        R = self.R
        (products,) = self._V.sum(lambda V, _: (sum(sign_products(v, R) for v in pieces_of(V)),))
        unchanged = self.products is not None and np.array_equal(products, self.products)
        self.R, self.products = procrustes(products), products
        self.loss = quantisation_loss(self.count, self.energy, products, self.R)
        return unchanged

    def projection(self) -> tuple[Array, Array]:
        """Return W = P R [d', K] and t = mean W [K]."""
        W = self.P @ self.R
        return W, self.mean @ W

    def _project(self, F: Shard) -> Shard:
        P = self.P.astype(F.dtype)
        return (F @ P - (self.mean @ self.P).astype(F.dtype)).astype(np.float32, copy=False)


def canonical_directions(
    features: Moments, sums: Array, labels: LabelSets, ridge: float
) -> tuple[Array, Array]:
    """Return the directions of features that correlate with the labels, and the correlations.

    Solutions of X^T Y (Y^T Y + rho_y I)^-1 Y^T X p = lambda^2 (X^T X + rho_x I) p for centred X,
    with p^T (X^T X + rho_x I) p = 1; rho_x = ridge tr(X^T X) / d, rho_y = ridge n / C.

    Args:
        features: moments of X [n, d].
        sums: of X's rows by label set [L, d].
        labels: of all rows.
        ridge: relative to the mean diagonal.

    Returns:
        P [d, r], at most C - 1 directions for one label a row, and lambda [r], falling.
    """
    Y, sizes = class_matrix(labels), labels.sizes[:, None]
    XY = (sums - sizes * features.mean).T @ Y
    YY = Y.T @ (sizes * Y)
    scatter = features.scatter
    d, classes = XY.shape
    explained = XY @ ridge_solution(YY, XY.T, ridge * features.count / classes)
    regular = scatter + ridge * np.trace(scatter) / d * np.eye(d)
    squares, P = eigh((explained + explained.T) / 2, regular)
    squares, P = squares[::-1], P[:, ::-1]
    correlated = squares > _SMALLEST_CORRELATION * squares[0]
    P = P[:, correlated]
    largest = P[np.abs(P).argmax(axis=0), np.arange(P.shape[1])]
    return P * np.where(largest >= 0, 1.0, -1.0), np.sqrt(squares[correlated])
