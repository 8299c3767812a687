"""KSH: Supervised Hashing with Kernels, bits one by one on what is left of the similarity.

Liu, Wang, Ji, Jiang and Chang, CVPR 2012. The paper's: min ||K S - B B^T||^2 over B = sign(Phi W),
each bit from an eigenvector that accelerated gradient steps refine, on 2,000 labelled rows. Ours:
products with S by label sets, linear in the rows where the released form is quadratic, and a little
ridge against rows that are equal. All labelled rows gain some points, at minutes a fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from schn_ray.core.settings import Count, Searched
from schn_ray.data.labels import LabelSets, Rows, share_a_label
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import chosen_rows
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.kernel_features import Kernel, random_kernel
from schn_ray.methods.shallow.label_algebra import check_pairs, set_sums, signed_quadratic
from schn_ray.methods.shallow.sgh import top_eigenvector

_RIDGE = 1e-9  # of the mean diagonal
_CHANGE = 0.01  # of the objective a row, below which a bit is done, as published
_DOUBLINGS = 50


class KshConfig(ShallowConfig):
    """Settings of KSH.

    Attributes:
        anchors: m, random rows of the kernel features.
        rows: labelled rows that are used; the others are not.
        iterations: gradient steps a bit, at most.
    """

    anchors: Annotated[int, Field(ge=2), Searched(integer=(100, 1000))] = 300
    rows: Count = 2000
    iterations: int = Field(default=500, ge=0)


class Ksh(ShallowFit[KshConfig]):
    """A round is a bit. Four passes in round 1, then work on the drawn rows alone.

    Attributes:
        B: learned codes of the drawn rows [l, K].
        A: F^T E F for the residual E [m, m].
        W: [m, K].
    """

    Config = KshConfig
    paper = Paper("Supervised Hashing with Kernels", "CVPR 2012")
    labels = "multi"

    kernel: Kernel
    phi_mean: Array
    A: Array
    B: Array
    W: Array
    _drawn: tuple[Array, Similarity] | None = None

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Find one bit."""
        prepared = self.prepared(rows, round)
        if round == 1:
            self.kernel = random_kernel(prepared, self.config.anchors, self.seed)
            (total,) = self.kernel.of(prepared).sum(lambda Phi, _: (Phi.sum(axis=0, dtype=float),))
            self.phi_mean = total / rows.count
        if self._drawn is None or round == 1:  # not state: drawn again after a restart
            self._drawn = self._draw(prepared, labels)
        F, S = self._drawn
        bit, n = round - 1, len(F)
        if round == 1:
            self.A = self.bits * signed_quadratic(S.labels, S.sums(F))
            self.B = np.zeros((n, self.bits))
            self.W = np.zeros((F.shape[1], self.bits))
        FF = F.T @ F
        a = top_eigenvector(self.A, FF + _RIDGE * np.trace(FF) / len(FF) * np.eye(len(FF)))
        a = a * np.sqrt(n / (a @ FF @ a))
        residual = Residual(S, self.B[:, :bit], self.bits)
        refined = refine(F, residual, a, self.config.iterations)
        self.W[:, bit] = max(a, refined, key=lambda w: residual.quadratic(_signs(F @ w)))
        self.B[:, bit] = _signs(F @ self.W[:, bit])
        v = F.T @ self.B[:, bit]
        self.A -= np.outer(v, v)
        self.objective = residual.quadratic(self.B[:, bit]) / n**2
        self.head = self.linear_head(self.W.copy(), self.phi_mean @ self.W, self.kernel)
        return round == self.bits

    def _draw(self, prepared: FeatureRows, labels: LabelSets | None) -> tuple[Array, Similarity]:
        known, *_ = check_pairs(labels)
        drawn = chosen_rows(self.seed, "labelled rows", prepared.count, self.config.rows)
        present, of_row = np.unique(known.set_of_row[drawn], return_inverse=True)
        few = LabelSets(of_row.astype(np.int64), known.sets[present])
        check_pairs(few)
        F = self.kernel(prepared.take(drawn)).astype(np.float64) - self.phi_mean
        return F, Similarity(few)


class Similarity:
    """S y for S = 1 where two rows share a label, else -1; S is never formed.

    Args:
        labels: of the rows.
    """

    def __init__(self, labels: LabelSets) -> None:
        self.labels = labels
        self._G = share_a_label(labels.sets, labels.sets).astype(np.float64)

    def sums(self, values: Array) -> Array:
        """Return the sums of values [n, q] by label set [L, q]."""
        numbers: Rows = np.arange(len(values))
        return set_sums(self.labels, numbers, values)

    def times(self, y: Array) -> Array:
        """Return S y [n]."""
        sums = np.bincount(self.labels.set_of_row, weights=y, minlength=len(self._G))
        return np.asarray((2 * (self._G @ sums) - y.sum())[self.labels.set_of_row])


@dataclass(frozen=True, eq=False)
class Residual:
    """E = K S - B B^T for the bits so far, as a product."""

    S: Similarity
    B: Array
    bits: int

    def times(self, y: Array) -> Array:
        """Return E y [n]."""
        return self.bits * self.S.times(y) - self.B @ (self.B.T @ y)

    def quadratic(self, y: Array) -> float:
        """Return y^T E y."""
        return float(y @ self.times(y))


def refine(F: Array, residual: Residual, start: Array, iterations: int) -> Array:
    """Minimise -q^T E q for q = tanh(F a / 2), by accelerated gradient steps with backtracking.

    Args:
        F: [n, m].
        residual: E.
        start: the first a [m].
        iterations: at most.
    """

    def value(a: Array) -> tuple[float, Array, Array]:
        q = np.tanh(F @ a / 2)
        Eq = residual.times(q)
        return -float(q @ Eq), q, Eq

    a = before = start
    last, momentum, inverse_step = value(a)[0], (0.0, 1.0), 1.0
    for _ in range(iterations):
        s = a + (momentum[0] - 1) / momentum[1] * (a - before)
        at_s, q, Eq = value(s)
        gradient = -F.T @ (Eq * (1 - q * q))
        for _ in range(_DOUBLINGS):
            candidate = s - gradient / inverse_step
            move = candidate - s
            now = value(candidate)[0]
            if now <= at_s + gradient @ move + inverse_step / 2 * move @ move:
                break
            inverse_step *= 2
        before, a = a, candidate
        momentum = (momentum[1], (1 + np.sqrt(1 + 4 * momentum[1] ** 2)) / 2)
        if abs(now - last) / len(F) <= _CHANGE:
            break
        last = now
    return a


def _signs(values: Array) -> Array:
    return np.where(values >= 0, 1.0, -1.0)
