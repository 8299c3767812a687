"""COSDISH: Column Sampling Based Discrete Supervised Hashing, exact steps on sampled columns.

Kang, Li and Zhou, AAAI 2016. The paper's: min ||K T - B B_O^T||^2 over codes, for a few columns O
of the soft similarity T (1 for similar rows, else -r with r = N1/N0 of these columns); the codes of
O bit by bit as a binary quadratic problem, the others as signs. Ours: local search with restarts
for the binary problem; random starts by label set, and codes of O that are those of their sets in
the next round, so that nothing depends on rows but their number by label set; more columns than
bits, spread over the label sets, since a class that is not among the last columns gets no code of
its own. As published: ``features: linear``, ``ridge: 1``, and ``columns`` equal to the bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from schn_ray.core.settings import Count
from schn_ray.data.labels import LabelSets, Rows, share_a_label
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.draws import generator
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows
from schn_ray.methods.shallow.fit import FeatureConfig, FeatureFit
from schn_ray.methods.shallow.label_algebra import check_pairs, feature_set_sums

_RESTARTS = 15
_RESTARTED = 64  # columns: with more, the linear part decides and restarts gain nothing


class CosdishConfig(FeatureConfig):
    """Settings of COSDISH.

    Attributes:
        rounds: draws of columns.
        steps: alternations of the two blocks of codes in a round.
        columns: rows that are drawn as columns; None: 10 a class, and at least K.
    """

    rounds: Count = 10
    steps: Count = 3
    columns: int | None = Field(default=None, ge=2)


class Cosdish(FeatureFit[CosdishConfig]):
    """Codes of label sets, no pass over rows; then a regression. 4 passes in all.

    Attributes:
        set_codes: B [L, K], the learned code of each label set.
    """

    Config = CosdishConfig
    paper = Paper("Column Sampling Based Discrete Supervised Hashing", "AAAI 2016")
    labels = "multi"

    set_codes: Array

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do one round on newly drawn columns; the last one also regresses."""
        known, *_ = check_pairs(labels)
        rng = generator(self.seed, f"columns of round {round}")
        if round == 1:
            self._start(rows, known)
        columns = self.config.columns or max(self.bits, 10 * known.sets.shape[1])
        drawn = spread_columns(known.sizes, columns, rng)
        T = soft_similarity(known, drawn)
        others = known.sizes - np.bincount(drawn, minlength=len(known.sizes))
        codes = self.set_codes[drawn]
        for _ in range(self.config.steps):
            codes = column_codes(T, drawn, others, self.set_codes, rng)
            pull = T @ codes
            self.set_codes = np.where(pull == 0, self.set_codes, np.sign(pull))
        self.objective = self._misfit(T, drawn, others, codes)
        if round < self.config.rounds:
            return False
        self.head = self.regressed(self.M.T @ self.set_codes, known.sizes @ self.set_codes)
        return True

    def row_codes(self, numbers: Rows, labels: LabelSets) -> NDArray[np.number]:
        """Return the codes of the label sets of the rows of one shard [m, K]."""
        return self.set_codes[labels.set_of_row[numbers]]

    def _start(self, rows: FeatureRows, known: LabelSets) -> None:
        self.M = feature_set_sums(self.features(rows, 1), known)
        shape = (known.sets.shape[0], self.bits)
        self.set_codes = generator(self.seed, "codes").choice([-1.0, 1.0], shape)

    def _misfit(self, T: Array, drawn: Rows, others: Rows, codes: Array) -> float:
        """Return ||K T - B B_O^T||^2 over all rows and the columns O."""
        of_others = np.sum((self.bits * T - self.set_codes @ codes.T) ** 2, axis=1) @ others
        return float(of_others + np.sum((self.bits * T[drawn] - codes @ codes.T) ** 2))


def spread_columns(sizes: Rows, columns: int, rng: np.random.Generator) -> Rows:
    """Draw rows so that each label set has its share; return their label sets [c].

    Every (n / c)-th row is taken, from a random one, of the rows in the order of their sets.

    Args:
        sizes: rows of each set [L].
        columns: c; all rows if there are fewer.
        rng: of the draw.
    """
    n = int(sizes.sum())
    c = min(columns, n)
    at = ((rng.random() + np.arange(c)) * (n / c)).astype(np.int64)
    return np.searchsorted(np.cumsum(sizes), np.minimum(at, n - 1), side="right")


def soft_similarity(labels: LabelSets, drawn: Rows) -> Array:
    """Return T [L, c]: 1 where a set shares a label with a column's, else -N1/N0 of these columns.

    Args:
        labels: of all rows.
        drawn: label set of each column [c].
    """
    similar = share_a_label(labels.sets, labels.sets[drawn])
    N1 = float(labels.sizes @ similar.sum(axis=1))
    N0 = float(labels.sizes.sum() * len(drawn)) - N1
    return np.where(similar, 1.0, -N1 / max(N0, 1.0))


def column_codes(
    T: Array, drawn: Rows, others: Rows, set_codes: Array, rng: np.random.Generator
) -> Array:
    """Return codes of the columns B_O [c, K], bit by bit on what earlier bits leave.

    Args:
        T: similarity of label sets and columns [L, c].
        drawn: label set of each column [c].
        others: rows of each label set that are not columns [L].
        set_codes: codes of those rows [L, K].
        rng: of restarts.
    """
    bits = set_codes.shape[1]
    weighted = others[:, None] * set_codes
    left, linear, gram = bits * T[drawn], bits * T.T @ weighted, set_codes.T @ weighted
    codes = np.empty((len(drawn), bits))
    for k in range(bits):
        p = linear[:, k] - codes[:, :k] @ gram[:k, k]
        codes[:, k] = z = binary_quadratic(left, p, rng)
        left = left - np.outer(z, z)
    return codes


def binary_quadratic(R: Array, p: Array, rng: np.random.Generator) -> Array:
    """Return signs z [c] that maximise z^T R z + 2 p^T z, by a local search from sign(p).

    The flip that gains most is made until none gains. For few signs, 15 random starts more.

    Args:
        R: [c, c], symmetric; its diagonal does not matter.
        p: [c].
        rng: of the restarts.
    """
    c = len(p)
    R = R - np.diag(np.diag(R))
    best, highest = np.ones(c), -np.inf
    for start in range(1 + _RESTARTS if c <= _RESTARTED else 1):
        z = np.where(p >= 0, 1.0, -1.0) if start == 0 else rng.choice([-1.0, 1.0], c)
        pull = R @ z + p
        while (worst := int(np.argmin(z * pull))) >= 0 and z[worst] * pull[worst] < -1e-9:
            z[worst] = -z[worst]
            pull += 2 * z[worst] * R[:, worst]
        value = float(z @ (pull + p))
        if value > highest + 1e-9:
            best, highest = z, value
    return best
