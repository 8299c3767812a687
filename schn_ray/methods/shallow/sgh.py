"""SGH: Scalable Graph Hashing, codes whose products approximate similarities of all pairs.

Jiang and Li, Scalable Graph Hashing with Feature Transformation, IJCAI 2015. The paper's: the
similarity 2 exp(-||x_i - x_j||^2 / 2) - 1 as a product P Q^T of features that each row has on its
own, and bits one by one on what is left of it, in two passes over the bits. Ours: gamma relative to
the mean diagonal, and unit rows as published by default.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.linalg import eigh

from schn_ray.core.settings import Searched, Weight
from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import generator
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, Sums, pieces_of
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.kernel_features import Kernel, random_kernel
from schn_ray.methods.shallow.preparation import moments

_RHO = 2.0  # width of the similarity, as published for unit rows


class SghConfig(ShallowConfig):
    """Settings of SGH.

    Attributes:
        anchors: m, random rows of the kernel features.
        gamma: ridge of the eigenproblem, relative to the mean diagonal.
    """

    anchors: Annotated[int, Field(ge=2), Searched(integer=(100, 1000))] = 300
    gamma: Weight = 1e-6


class Sgh(ShallowFit[SghConfig]):
    """A round is a bit: the top of A w = lambda Z w, then A -= v v^T. 4 + 2 K passes.

    In the second half each bit, in random order, is taken out of A and found again.
    """

    Config = SghConfig
    paper = Paper("Scalable Graph Hashing with Feature Transformation", "IJCAI 2015")

    kernel: Kernel
    phi_mean: Array
    A: Array
    Z: Array
    W: Array
    v: Array
    _Phi: FeatureRows | None = None

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Find one bit; the first round also computes what all bits need."""
        prepared = self.prepared(rows, round)
        if round == 1:
            self.kernel = random_kernel(prepared, self.config.anchors, self.seed)
        if self._Phi is None or round == 1:
            self._Phi = self.kernel.of(prepared)
        if round == 1:
            self._start(prepared, self._Phi)
        order = generator(self.seed, "order of bits").permutation(self.bits)
        bit = round - 1 if round <= self.bits else int(order[round - 1 - self.bits])
        self.A += np.outer(self.v[:, bit], self.v[:, bit])  # 0 in the first half
        self.W[:, bit] = w = top_eigenvector(self.A, self.Z)
        v, total = self._Phi.sum(lambda Phi, _: _sign_sums(Phi, w, float(self.phi_mean @ w)))
        self.v[:, bit] = v - self.phi_mean * total
        self.A -= np.outer(self.v[:, bit], self.v[:, bit])
        self.head = self.linear_head(self.W.copy(), self.phi_mean @ self.W, self.kernel)
        return round == 2 * self.bits

    def _start(self, prepared: FeatureRows, Phi: FeatureRows) -> None:
        first = moments(Phi)
        self.phi_mean = first.mean
        m = len(self.phi_mean)
        self.Z = first.scatter
        self.Z[np.diag_indices(m)] += self.config.gamma * np.trace(self.Z) / m
        kernel = self.kernel
        products, total = prepared.sum(lambda X, _: _feature_sums(kernel, X))
        # the columns of ones of P and Q vanish, as Phi is centred; the others are the same in both
        G = products - np.outer(total, self.phi_mean)
        self.A = self.bits * G.T @ G
        self.W, self.v = np.zeros((m, self.bits)), np.zeros((m, self.bits))


def similarity_features(X: Shard) -> Array:
    """Return p [n, d + 1] such that p_i . p_j - 1 approximates 2 exp(-||x_i - x_j||^2 / 2) - 1.

    P and Q of the paper are p with a column of 1, and of -1. The chord of e^s on [-1, 1] replaces
    it, so |x_i . x_j| must not exceed 1.

    Args:
        X: prepared features [n, d].
    """
    f = np.exp(-np.einsum("ij,ij->i", X, X) / _RHO)[:, None]
    e = np.e
    return np.hstack([np.sqrt(2 * (e - 1 / e) / _RHO) * f * X, np.sqrt(e + 1 / e) * f])


def top_eigenvector(A: Array, Z: Array) -> Array:
    """Return the eigenvector of A w = lambda Z w of the largest lambda, largest entry positive.

    Args:
        A: [m, m], symmetric.
        Z: [m, m], symmetric and positive.
    """
    m = len(A)
    _, vectors = eigh((A + A.T) / 2, Z, subset_by_index=[m - 1, m - 1])
    w = np.asarray(vectors[:, 0])
    return w if w[np.abs(w).argmax()] >= 0 else -w


def _feature_sums(kernel: Kernel, X: Shard) -> Sums:
    """Return the sums of p^T Phi [d + 1, m] and of p [d + 1]."""
    products, total = np.zeros((X.shape[1] + 1, len(kernel.anchors))), np.zeros(X.shape[1] + 1)
    for x in pieces_of(X):
        p = similarity_features(x)
        products += p.T @ kernel(x)
        total += p.sum(axis=0, dtype=np.float64)
    return products, total


def _sign_sums(Phi: Shard, w: Array, offset: float) -> Sums:
    """Return Phi^T b [m] and the sum of b, for b = sign(Phi w - offset)."""
    sums, total, one = np.zeros(len(w)), 0.0, Phi.dtype.type(1)
    direction = w.astype(Phi.dtype)
    for phi in pieces_of(Phi):
        b = np.where(phi @ direction >= offset, one, -one)
        sums += b @ phi
        total += float(b.sum())
    return sums, total
