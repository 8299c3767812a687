"""CNNH: Supervised Hashing via Image Representation Learning (Xia et al., AAAI 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.data.labels import LabelSets, share_a_label
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
    PublishedFigure,
)
from schn_ray.methods.classifiers import LabelClassifier
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.models.encoder import Encoder

Floats = NDArray[np.float64]


class CnnhConfig(MethodConfig):
    """Settings of CNNH.

    Attributes:
        target: weight of the regression to the codes of the first stage.
        classification: weight of a classifier on the features; 0 is CNNH, above it is CNNH+.
        sweeps: over all numbers of the first stage, at most.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    target: Weight = 1.0
    classification: Annotated[Weight, Searched(choices=(0.0, 1.0))] = 0.0
    sweeps: Count = 5


class Cnnh(DeepMethod[CnnhConfig]):
    """CNNH: codes from the similarities first, then a network that learns them.

    Stage 1, once: H in [-1, 1] [n, K] with the least |H H^T - K S|^2, S = 2 A - 1, one number at a
    time by a Newton step; B = sign(H). Stage 2: L = BCE(sigmoid(2 h), (1 + B) / 2), and for CNNH+ a
    classifier on the features. Ours: rows come in random order, all numbers of a row in turn; a
    sweep that does not descend ends the stage; sums over label sets replace the n x n matrix. It
    takes about 10 microseconds a number and sweep: 10 seconds for 5,000 rows, 32 bits and 5 sweeps.
    """

    Config = CnnhConfig
    paper = Paper(
        "Supervised Hashing for Image Retrieval via Image Representation Learning",
        "AAAI 2014",
        figures=(
            PublishedFigure(
                "CIFAR-10, 12 32 48 bits",
                ".439 .509 .522; with a classifier beside it .465 .521 .532",
                "",
                "as quoted by the authors of DLBHC",
            ),
        ),
    )

    def __init__(self, config: CnnhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        plus = config.classification > 0
        self.classifier = LabelClassifier(problem.width, problem) if plus else None

    def start(self, codes: CodeTable) -> None:
        """Solve the codes of all rows."""
        problem = self.problem
        parts = np.diff([0, *(problem.lengths or (problem.bits,))]).tolist()  # each fits by itself
        of_parts = [
            factorised_similarity(problem.label_sets, bits, self.config.sweeps, problem.seed + at)
            for at, bits in enumerate(parts)
        ]
        H = np.concatenate(of_parts, axis=1)[:, : problem.bits]
        codes.write(np.arange(problem.rows), torch.from_numpy(np.where(H >= 0, 1.0, -1.0)))

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the regression of own rows, and the classifier's loss."""
        target = (1 + batch.B[batch.own]) / 2
        terms = {"target": binary_cross_entropy_with_logits(2 * out.h, target)}
        if self.classifier is not None:
            terms["classification"] = self.classifier(out.F.to(out.h), batch)
        return terms


def factorised_similarity(labels: LabelSets, bits: int, sweeps: int, seed: int) -> Floats:
    """Return H [n, K] in [-1, 1] with a small |H H^T - K S|^2; S is 1 for similar rows, else -1.

    Args:
        labels: of the rows.
        bits: K.
        sweeps: at most; fewer if one does not descend, and then the H before it is returned.
        seed: of the first H and of the order.
    """
    rng = np.random.default_rng([seed, bits])
    n = len(labels.set_of_row)
    H = rng.uniform(-1, 1, (n, bits))
    similar = share_a_label(labels.sets, labels.sets)  # [L, L]
    value = _objective(H, labels, similar)
    for _ in range(sweeps):
        after = _swept(H, labels, similar, rng)
        if (descended := _objective(after, labels, similar)) >= value:
            break
        H, value = after, descended
    return H


def _swept(
    H: Floats, labels: LabelSets, similar: NDArray[np.bool_], rng: np.random.Generator
) -> Floats:
    H, K = H.copy(), H.shape[1]
    V, M = H.T @ H, _set_sums(H, labels)
    total = M.sum(axis=0)
    for i in rng.permutation(len(H)):
        row, g = H[i], labels.set_of_row[i]
        # a step changes one column of each sum, and each column is used once a row
        pull = K * (2 * M[similar[g]].sum(axis=0) - total)
        own = K if similar[g, g] else -K
        for j in rng.permutation(K):
            x, first = row[j], row @ V[:, j] - pull[j]
            second = V[j, j] + x * x + row @ row - own
            step = -first / second if second > 0 else -np.sign(first) * 2
            d = min(max(step, -1 - x), 1 - x)
            V[j] += d * row
            V[:, j] += d * row
            V[j, j] += d * d
            M[g, j] += d
            total[j] += d
            row[j] = x + d
    return H


def _objective(H: Floats, labels: LabelSets, similar: NDArray[np.bool_]) -> float:
    """Return |H H^T - K S|^2."""
    M, (n, K) = _set_sums(H, labels), H.shape
    agreement = 2 * np.sum(M * (similar.astype(np.float64) @ M)) - np.sum(M.sum(axis=0) ** 2)
    return float(np.sum((H.T @ H) ** 2) - 2 * K * agreement + K**2 * n**2)


def _set_sums(H: Floats, labels: LabelSets) -> Floats:
    sums = np.zeros((labels.sets.shape[0], H.shape[1]))
    np.add.at(sums, labels.set_of_row, H)
    return sums
