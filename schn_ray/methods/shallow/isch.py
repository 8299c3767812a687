"""ISCH: Inductive Structure Consistent Hashing, a dictionary and an encoder of labels.

Zhang, Liu, Luo, Huang, Shen, Shen and Lu, TNNLS 32(10), 2021. The paper's, from its abstract and a
reader's notes: the objective, every step, an encoder fitted every third round, balance by medians.

  min ||Phi - V D^T||^2 + beta ||B - V Q^T||^2 + gamma ||Phi - B Z^T||^2 + alpha ||V - f(Y)||^2

Ours: f(Y) stays in the step of V, which the published text drops; without it labels touch nothing
after the start. Also the encoder is fitted to set means; features are scaled to ||Phi||^2 =
0.03 n K; alpha = 10 and the start from f(Y), as the published weights are unknown.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import generator
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, ShardState, Sums
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit
from schn_ray.methods.shallow.label_algebra import check_pairs, class_matrix, set_sums
from schn_ray.methods.shallow.rotations import procrustes, random_rotation
from schn_ray.methods.shallow.ssah import check_rank

_ENERGY = 0.03  # ||Phi||^2 / (n K)
_STEPS = 100  # of the dictionary, and of the encoder
_EVERY = 3  # rounds between two fits of the encoder


class IschConfig(FeatureConfig):
    """Settings of ISCH.

    Attributes:
        rounds: in each, every unknown is solved for in turn.
        alpha: weight of the label encoder.
        beta: weight of the codes.
        gamma: weight of the features' reconstruction from codes.
        hidden: units of the label encoder.
        eta: ridge of the label encoder.
        balance: cut each bit at its median, so that half of the rows have it.
    """

    rounds: Count = 15
    alpha: Annotated[Weight, Searched(log=(0.1, 100.0))] = 10.0
    beta: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    gamma: Weight = 1.0
    hidden: Count = 64
    eta: Weight = 0.01
    balance: bool = True


class Isch(FeatureFit[IschConfig]):
    """Dictionary, rotations, embedding and codes in turn. Some 40 passes a round, most over codes.

    Attributes:
        B: learned codes of the rows, int8.
        V: embedding of the rows, float32.
    """

    Config = IschConfig
    paper = Paper("Inductive Structure Consistent Hashing", "TNNLS 2021")
    labels = "multi"

    def __init__(self, config: IschConfig, bits: int, seed: int = 0) -> None:
        super().__init__(config, bits, seed)
        self.B, self.V = ShardState(), ShardState()

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the last one also regresses."""
        known, *_ = check_pairs(labels)
        raw = self.features(rows, round)
        Phi = raw.map(self._scaled, raw.width)
        Y = class_matrix(known)
        if round == 1:
            self._start(Phi, known, Y)
        self.dictionary = unit_dictionary(self.VV, self.PV)
        self.Q, self.Z = procrustes(self.BV), procrustes(self.PB)
        self._embed(Phi, known, label_code(Y, self.encoder))
        self._fit_codes(Phi)
        if round % _EVERY == 1:
            self._fit_encoder(Y, known.sizes)
        self.objective = self._objective(known.sizes, label_code(Y, self.encoder))
        if round < self.config.rounds:
            return False
        B_total = self.total
        PB = self.PB / self._scale() + np.outer(self.moments.mean, B_total)
        self.head = self.regressed(PB, B_total)
        return True

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return B of the rows of one shard [m, K]."""
        return self.B[numbers]

    def _scale(self) -> float:
        energy = np.trace(self.moments.scatter)
        return float(np.sqrt(_ENERGY * self.moments.count * self.bits / energy))

    def _scaled(self, F: Shard) -> Array:
        return np.asarray((F - self.moments.mean) * self._scale())

    def _start(self, Phi: FeatureRows, labels: LabelSets, Y: Array) -> None:
        """V = f(Y) of a random encoder, scaled to ||V||^2 = n K; B = sign(V Q^T) for a random Q."""
        n, K = Phi.count, self.bits
        check_rank(K, int(np.linalg.matrix_rank(self.moments.scatter, hermitian=True)))
        rng = generator(self.seed, "encoder")
        hidden = self.config.hidden
        W1 = rng.standard_normal((Y.shape[1], hidden))
        W2 = rng.standard_normal((hidden, K)) / np.sqrt(hidden)
        squares = labels.sizes @ np.sum(label_code(Y, (W1, W2)) ** 2, axis=1)
        self.encoder = W1, W2 * np.sqrt(n * K / squares)
        of_set, Q = label_code(Y, self.encoder), random_rotation(K, K, self.seed)

        def start(F: Shard, numbers: Rows) -> Sums:
            V = self._rounded(numbers, of_set[labels.set_of_row[numbers]])
            B = np.where(V @ Q.T >= 0, 1.0, -1.0)
            self.B[numbers] = B.astype(np.int8)
            return V.T @ V, F.T @ V, B.T @ V, F.T @ B, B.sum(axis=0)

        self.VV, self.PV, self.BV, self.PB, self.total = Phi.sum(start)

    def _embed(self, Phi: FeatureRows, labels: LabelSets, of_set: Array) -> None:
        """Set V = [Phi D + beta B Q + alpha f(Y)] [D^T D + (beta + alpha) I]^-1, and Psi."""
        alpha, beta, gamma = self.config.alpha, self.config.beta, self.config.gamma
        D, self._Psi = self.dictionary, ShardState()
        curvature = D.T @ D + (alpha + beta) * np.eye(self.bits)

        def embed(F: Shard, numbers: Rows) -> Sums:
            pull = F @ D + beta * self.B[numbers] @ self.Q
            pull += alpha * of_set[labels.set_of_row[numbers]]
            V = self._rounded(numbers, np.asarray(np.linalg.solve(curvature, pull.T).T, float))
            # float32: the medians are exact by counting
            self._Psi[numbers] = (beta * V @ self.Q.T + gamma * F @ self.Z).astype(np.float32)
            return V.T @ V, F.T @ V, set_sums(labels, numbers, V)

        self.VV, self.PV, self.MV = Phi.sum(embed)

    def _rounded(self, numbers: Rows, V: Array) -> Array:
        """Keep V of some rows as float32; return what is kept, as float64."""
        self.V[numbers] = V.astype(np.float32)
        return self.V[numbers].astype(np.float64)

    def _fit_codes(self, Phi: FeatureRows) -> None:
        thresholds = np.zeros(self.bits, dtype=np.float32)
        if self.config.balance:
            thresholds = column_medians(Phi.without_features(), self._Psi, self.bits)

        def code(F: Shard, numbers: Rows) -> Sums:
            B = np.where(self._Psi[numbers] >= thresholds, 1.0, -1.0)
            self.B[numbers] = B.astype(np.int8)
            return B.T @ self.V[numbers].astype(np.float64), F.T @ B, B.sum(axis=0)

        self.BV, self.PB, self.total = Phi.sum(code)

    def _fit_encoder(self, Y: Array, sizes: Rows) -> None:
        means = self.MV / np.maximum(sizes, 1)[:, None]
        self.encoder = fitted_encoder(Y, means, sizes, self.encoder, self.config.eta)

    def _objective(self, sizes: Rows, of_set: Array) -> float:
        n, K, c, D = self.moments.count, self.bits, self.config, self.dictionary
        energy, V_squares = _ENERGY * n * K, np.trace(self.VV)
        visual = energy - 2 * np.sum(D * self.PV) + np.sum((D @ self.VV) * D)
        rotated = n * K - 2 * np.sum(self.Q * self.BV) + V_squares
        inductive = energy - 2 * np.sum(self.Z * self.PB) + n * K
        labels = V_squares - 2 * np.sum(of_set * self.MV) + sizes @ np.sum(of_set**2, axis=1)
        return float(visual + c.beta * rotated + c.gamma * inductive + c.alpha * labels)


def label_code(Y: Array, encoder: tuple[Array, Array]) -> Array:
    """Return f(y) = tanh(y W1) W2 of label sets [L, K].

    Args:
        Y: labels of the sets [L, C].
        encoder: W1 [C, hidden] and W2 [hidden, K].
    """
    return np.asarray(np.tanh(Y @ encoder[0]) @ encoder[1])


def fitted_encoder(
    Y: Array, targets: Array, sizes: Rows, start: tuple[Array, Array], eta: float
) -> tuple[Array, Array]:
    """Return W1, W2 that lower sum_g c_g ||f(y_g) - target_g||^2 + eta (||W1||^2 + ||W2||^2).

    Args:
        Y: labels of the sets [L, C].
        targets: [L, K].
        sizes: rows of each set, c [L].
        start: the first W1 and W2.
        eta: the ridge.
    """
    split, shapes = start[0].size, (start[0].shape, start[1].shape)
    weights = (sizes / sizes.sum())[:, None]
    ridge = eta / sizes.sum()

    def value(flat: Array) -> tuple[float, Array]:
        W1, W2 = flat[:split].reshape(shapes[0]), flat[split:].reshape(shapes[1])
        hidden = np.tanh(Y @ W1)
        error = hidden @ W2 - targets
        down = 2 * weights * error
        into = (down @ W2.T) * (1 - hidden**2)
        gradient = np.concatenate([(Y.T @ into).ravel(), (hidden.T @ down).ravel()])
        loss = np.sum(weights * error**2) + ridge * flat @ flat
        return float(loss), gradient + 2 * ridge * flat

    flat = np.concatenate([start[0].ravel(), start[1].ravel()])
    best = minimize(value, flat, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return best[:split].reshape(shapes[0]), best[split:].reshape(shapes[1])


def unit_dictionary(VV: Array, PV: Array) -> Array:
    """Return D [m, K] that minimises ||Phi - V D^T||^2 with columns of length 1 at most.

    Accelerated projected gradient steps from the least squares, clipped.

    Args:
        VV: V^T V [K, K].
        PV: Phi^T V [m, K].
    """
    step = 1 / np.linalg.eigvalsh(VV)[-1]
    D = ahead = _in_unit_ball(PV @ np.linalg.pinv(VV))
    momentum = 1.0
    for _ in range(_STEPS):
        after = _in_unit_ball(ahead - step * (ahead @ VV - PV))
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / faster * (after - D)
        D, momentum = after, faster
    return D


def column_medians(rows: FeatureRows, values: ShardState, columns: int) -> Shard:
    """Return of each column the smallest value that more than half of the rows do not exceed.

    Exact, in 32 passes that count: the bits of float32 numbers, as integers, have their order.

    Args:
        rows: rows of the values.
        values: float32 of each row [n, columns].
        columns: of the values.
    """
    low, high = np.full(columns, -(2**31)), np.full(columns, 2**31 - 1)
    while np.any(low < high):
        middle = (low + high) // 2
        (counts,) = rows.sum(lambda _, at: (np.sum(_ordered(values[at]) <= middle, axis=0),))  # noqa: B023
        enough = counts > rows.count // 2
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return _ordered(low.astype(np.int32).view(np.float32)).astype(np.int32).view(np.float32)


def _ordered(values: Shard) -> Rows:
    """Return integers in the order of float32 numbers; it is its own inverse."""
    bits = np.asarray(values, np.float32).view(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)


def _in_unit_ball(D: Array) -> Array:
    return D / np.maximum(np.linalg.norm(D, axis=0), 1)
