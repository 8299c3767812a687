"""LFH: Latent Factor Hashing, the likelihood of similar pairs under relaxed codes.

Zhang, Zhang, Li and Guo, SIGIR 2014. The paper's: the log-likelihood sum_ij s_ij th_ij - log(1 +
exp(th_ij)) - ||U||^2 / (2 beta) with th_ij = u_i . u_j / 2, raised by the steps of a lower bound on
sampled columns; then a linear regression of U. From memory: K columns a round, and a start from
normal numbers. Ours: the regression of sign(U) on kernel features, worth ten points, as norms of U
vary. As published: ``features: linear``, ``target: real``, ``ridge: 1``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schn_ray.core.settings import Count, Searched
from schn_ray.data.labels import LabelSets, Rows, share_a_label
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import chosen_rows, row_normals
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, ShardState, Sums
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit
from schn_ray.methods.shallow.label_algebra import check_pairs


class LfhConfig(FeatureConfig):
    """Settings of LFH.

    Attributes:
        rounds: draws of columns.
        beta: variance of the prior of the relaxed codes.
        target: what is regressed on the features: signs, or the relaxed codes as published.
    """

    rounds: Count = 50
    beta: Annotated[float, Field(gt=0), Searched(log=(1.0, 100.0))] = 30.0
    target: Literal["sign", "real"] = "sign"


class Lfh(FeatureFit[LfhConfig]):
    """A round moves all rows given K drawn ones, then those given all others. T passes over U.

    Attributes:
        U: relaxed codes of the rows, float32; their signs are the learned codes.
    """

    Config = LfhConfig
    paper = Paper("Supervised Hashing with Latent Factor Models", "SIGIR 2014")
    labels = "multi"

    def __init__(self, config: LfhConfig, bits: int, seed: int = 0) -> None:
        super().__init__(config, bits, seed)
        self.U = ShardState()

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the last one also regresses."""
        known, *_ = check_pairs(labels)
        features = self.features(rows, round)
        state = rows.without_features()
        if round == 1:
            state.each(lambda _, numbers: self._draw(numbers))
        columns = min(self.bits, rows.count // 2)
        drawn = chosen_rows(self.seed, f"columns of round {round}", rows.count, columns)
        self._move(state, known, drawn)
        if round < self.config.rounds:
            return False
        self.head = self.regressed(*features.sum(self._targets))
        return True

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return the signs of U of the rows of one shard [m, K]."""
        return np.where(self.U[numbers] >= 0, 1, -1)

    def _draw(self, numbers: Rows) -> None:
        drawn = row_normals(self.seed, "U", numbers, self.bits)
        self.U[numbers] = drawn.astype(np.float32)

    def _move(self, state: FeatureRows, labels: LabelSets, drawn: Rows) -> None:
        """Move the other rows given the drawn ones, then the drawn ones given the others."""
        U_O = self.U.pick(state, drawn, self.bits)
        similar = share_a_label(labels.sets, labels.sets[labels.set_of_row[drawn]])
        beta = self.config.beta

        def move_others(_: Shard, numbers: Rows) -> Sums:
            others = ~np.isin(numbers, drawn)
            s = similar[labels.set_of_row[numbers[others]]].astype(np.float64)
            U = self.U[numbers].copy()
            U[others] = raised(U[others].astype(np.float64), U_O, s, beta)
            self.U[numbers] = U
            V = U[others].astype(np.float64)
            theta = V @ U_O.T / 2
            likelihood = np.sum(s * theta - np.logaddexp(0, theta))
            return (s - logistic(theta)).T @ V, V.T @ V, 2 * likelihood, np.sum(V * V) / (2 * beta)

        pull, products, likelihood, prior = state.sum(move_others)
        moved = raised_by_sums(U_O, pull, products, beta)

        def write_drawn(_: Shard, numbers: Rows) -> None:
            inside = (drawn >= numbers[0]) & (drawn <= numbers[-1])
            U = self.U[numbers].copy()
            U[drawn[inside] - numbers[0]] = moved[inside]
            self.U[numbers] = U

        state.each(write_drawn)
        # of other columns each round, so it swings
        self.objective = float(likelihood - prior - np.sum(U_O**2) / (2 * beta))

    def _targets(self, F: Shard, numbers: Rows) -> tuple[Array, Array]:
        U = self.U[numbers].astype(np.float64)
        if self.config.target == "sign":
            U = np.where(U >= 0, 1.0, -1.0)
        return F.T @ U, U.sum(axis=0)


def raised(U: Array, U_O: Array, similar: Array, beta: float) -> Array:
    """Return rows [n, K] at which the likelihood of their pairs with columns is no lower.

    Args:
        U: relaxed codes of the rows [n, K].
        U_O: of the columns [c, K].
        similar: s [n, c], 1 or 0.
        beta: variance of the prior.
    """
    pull = (similar - logistic(U @ U_O.T / 2)) @ U_O
    return raised_by_sums(U, pull, U_O.T @ U_O, beta)


def raised_by_sums(U: Array, pull: Array, products: Array, beta: float) -> Array:
    """Return U + (pull - U / beta) (products / 8 + I / beta)^-1, the top of the lower bound.

    Args:
        U: [n, K].
        pull: sum_j (s_ij - a_ij) u_j [n, K].
        products: sum_j u_j u_j^T [K, K].
        beta: variance of the prior.
    """
    curvature = products / 8 + np.eye(len(products)) / beta
    return U + np.linalg.solve(curvature, (pull - U / beta).T).T


def logistic(theta: Array) -> Array:
    """Return 1 / (1 + exp(-theta)), without overflow.

    Args:
        theta: any shape.
    """
    return np.asarray((1 + np.tanh(theta / 2)) / 2)
