"""OCB: Ordinal Constraint Binary coding, a rotation that preserves which of two centres is nearer.

Liu, Ji, Wang and Shen, TPAMI 41(4), 2019; AAAI 2017 by Liu, Ji, Wu and Huang. The papers': triples
of centres, of which a code should order distances as the features do, and a descent on the Stiefel
manifold. **A reconstruction**: the loss, its scale and the batches are ours, as the released code
descends another objective than it tests and the article's details could not be read. It gains over
PCA with a random rotation, but is below ITQ; the published tables say above.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from schn_ray.core.settings import Count, Searched
from schn_ray.data.labels import LabelSets, Rows
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.anchors import kmeans_anchors, squared_distances
from schn_ray.methods.shallow.draws import generator
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.preparation import principal_axes
from schn_ray.methods.shallow.rotations import procrustes, random_rotation

_BATCH = 100  # centres
_HALVINGS = 30


class OcbConfig(ShallowConfig):
    """Settings of OCB.

    Attributes:
        rounds: visits of every centre.
        centres: of k-means, whose triples are ordered.
        gain: steepness of the tanh that stands for the sign.
        temperature: scale of the loss, as a share of K.
    """

    rounds: Count = 6
    centres: Annotated[int, Field(ge=3), Searched(integer=(100, 1000))] = 300
    gain: Annotated[float, Field(gt=0), Searched(log=(0.5, 5.0))] = 1.5
    temperature: float = Field(default=1 / 16, gt=0)


class Ocb(ShallowFit[OcbConfig]):
    """A round visits each centre once, a hundred at a time. 13 passes in round 1, then none.

    Attributes:
        R: [r, K], orthonormal rows.
        step: of the last descent.
    """

    Config = OcbConfig
    paper = Paper("Ordinal Constraint Binary Coding", "TPAMI 2019")

    P: Array
    rows_mean: Array
    distances: Array
    centres: Array
    R: Array
    step = 1.0

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round; the first one also computes the centres."""
        if round == 1:
            self._start(self.prepared(rows, round))
        tau = self.bits * self.config.temperature
        order = generator(self.seed, f"order of round {round}").permutation(len(self.centres))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            self.R, self.step = descended(
                self.R, self.centres, self.distances, batch, tau, self.step
            )
        every = np.arange(len(self.centres))
        self.objective = ordinal_loss(self.R, self.centres, self.distances, every, tau)
        W = self.P @ self.R
        self.head = self.linear_head(W, self.rows_mean @ W)
        return round >= self.config.rounds

    def _start(self, prepared: FeatureRows) -> None:
        first, self.P = principal_axes(prepared, self.bits)
        anchors = kmeans_anchors(prepared, self.config.centres, self.seed)
        self.rows_mean = first.mean
        projected = (anchors - first.mean) @ self.P
        self.centres = projected * (self.config.gain / np.sqrt(np.mean(projected**2)))
        self.distances = np.asarray(squared_distances(anchors, anchors), np.float64)
        self.R = random_rotation(self.P.shape[1], self.bits, self.seed)


def ordinal_loss(R: Array, centres: Array, distances: Array, batch: Rows, tau: float) -> float:
    """Return the mean of sigmoid((T_ri - T_rj) / tau) over r in the batch, i farther from r than j.

    T = H H^T for H = tanh(centres R).

    Args:
        R: [r, K].
        centres: projected and scaled [L, r].
        distances: between centres [L, L].
        batch: numbers of the centres r.
        tau: temperature.
    """
    q, pairs = _violations(np.tanh(centres @ R), distances, batch, tau)
    return float(q.sum() / pairs)


def ordinal_gradient(R: Array, centres: Array, distances: Array, batch: Rows, tau: float) -> Array:
    """Return the gradient of ``ordinal_loss`` in R [r, K].

    Args:
        R: [r, K].
        centres: projected and scaled [L, r].
        distances: between centres [L, L].
        batch: numbers of the centres r.
        tau: temperature.
    """
    H = np.tanh(centres @ R)
    q, pairs = _violations(H, distances, batch, tau)
    slope = q * (1 - q) / (tau * pairs)
    dT = slope.sum(axis=2) - slope.sum(axis=1)
    dH = dT.T @ H[batch]
    np.add.at(dH, batch, dT @ H)
    return np.asarray(centres.T @ (dH * (1 - H**2)))


def descended(
    R: Array, centres: Array, distances: Array, batch: Rows, tau: float, step: float
) -> tuple[Array, float]:
    """Return R after a step that lowers the batch's loss, and the step for the next batch.

    Args:
        R: [r, K], orthonormal rows.
        centres: projected and scaled [L, r].
        distances: between centres [L, L].
        batch: numbers of the centres r.
        tau: temperature.
        step: to try first.
    """
    loss = ordinal_loss(R, centres, distances, batch, tau)
    G = ordinal_gradient(R, centres, distances, batch, tau)
    direction = G - R @ G.T @ R
    slope = float(np.sum(G * direction))
    for _ in range(_HALVINGS):
        candidate = procrustes(R - step * direction)
        now = ordinal_loss(candidate, centres, distances, batch, tau)
        if now <= loss - 1e-4 * step * slope:
            return candidate, 2 * step
        step /= 2
    return R, step


def _violations(H: Array, distances: Array, batch: Rows, tau: float) -> tuple[Array, int]:
    """Return sigmoid((T_ri - T_rj) / tau) where i is farther than j, else 0 [batch, L, L]."""
    T = H[batch] @ H.T
    far = distances[batch]
    farther = far[:, :, None] > far[:, None, :]
    farther[np.arange(len(batch)), batch] = False
    farther[np.arange(len(batch)), :, batch] = False
    q = (1 + np.tanh((T[:, :, None] - T[:, None, :]) / (2 * tau))) / 2
    return q * farther, max(int(farther.sum()), 1)
