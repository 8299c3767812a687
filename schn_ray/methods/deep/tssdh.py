"""TSSDH: transductive semisupervised deep hashing (Shi, Gong, Chen and Hei, TNNLS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
)
from schn_ray.methods.classifiers import LabelClassifier, one_label_a_row
from schn_ray.methods.deep.discrete_steps import chunks
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, counted_mean, other_rows, square_quantisation
from schn_ray.methods.triplets import soft_hamming
from schn_ray.models.encoder import Encoder


class TssdhConfig(MethodConfig):
    """Settings of TSSDH.

    Attributes:
        pair: weight of the likelihood of pairs of codes.
        classification: weight of the classifier on the features.
        feature: weight of the large margin between features.
        quantization: weight of the pull to -1 or +1.
        feature_margin: least squared distance of dissimilar features, which have length 1.
        supervised_iterations: before rows without a label get one; about a third of training.
        neighbours: nearest rows that decide how sure the label of a row is.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    classification: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    feature: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    quantization: Annotated[Weight, Searched(log=(1e-3, 0.3))] = 0.1
    feature_margin: Annotated[float, Field(gt=0, le=4)] = 1.0
    supervised_iterations: Annotated[Count, Searched(integer=(1, 20))] = 2
    neighbours: Count = 10


class Tssdh(DeepMethod[TssdhConfig]):
    """TSSDH, a reconstruction: rows without a label take part with the label that is predicted.

    Each row has labels and a confidence r: 1 where labels are known, 0 where they are not, at
    first. With w_ij = r_i r_j, D the soft Hamming distance and t = 4 / K: L = sum w [A t D - (1 -
    A) log(1 - e^(-t D))] / sum w + the same means of A |f_i - f_j|^2 + (1 - A) max(0, m - |f_i -
    f_j|^2) over features of length 1, + a classifier weighted by r + lambda mean (|u| - 1)^2. After
    an iteration, drawn rows without a label get the likeliest class, and r = 1 - d / max d, d the
    sum of distances to the 10 nearest drawn rows. Only the abstract could be read; all equations
    are this project's. Where rows have several labels, predicted ones hurt, so rows without any
    stay out.
    """

    Config = TssdhConfig
    iterations: Tensor  # done so far
    classes: Tensor  # of each training row, as predicted [n]; -1: not yet
    confidence: Tensor  # r of each training row [n]
    paper = Paper(
        "Transductive Semisupervised Deep Hashing",
        "IEEE TNNLS 2021; equations reconstructed from the abstract",
    )

    def __init__(self, config: TssdhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.width, problem)
        self._single = one_label_a_row(problem.label_sets)
        labels = problem.label_sets
        labelled = torch.from_numpy(labels.sets.indptr[1:] > labels.sets.indptr[:-1])
        self._known = labelled[torch.from_numpy(labels.set_of_row)]
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("classes", torch.full((problem.rows,), -1))
        self.register_buffer("confidence", self._known.float())

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of pairs, classes, features and quantisation, weighted by confidence."""
        U, F, own, config = torch.tanh(out.h), out.F.to(out.h), batch.own, self.config
        Y, r = self._labels(batch), self.confidence[batch.rows].to(out.h)
        w = r[own][:, None] * r * other_rows(batch)
        A = (Y[own] @ Y.T > 0).to(out.h)
        apart = soft_hamming(U, batch.gather(U)) * (4 / self.problem.bits)
        surely_apart = (-torch.expm1(-apart.clamp(min=1e-4))).log()
        distances = 2 - 2 * cosines(F, batch.gather(F))  # of features of length 1
        margin = (config.feature_margin - distances).clamp(min=0)
        return {
            "pair": counted_mean(A * apart - (1 - A) * surely_apart, w, batch),
            "classification": counted_mean(self.classifier.row_losses(F, Y[own]), r[own], batch),
            "feature": counted_mean(A * distances + (1 - A) * margin, w, batch),
            "quantization": square_quantisation(U),
        }

    @torch.no_grad()
    def outputs(self, out: Outputs) -> dict[str, Tensor]:
        """Return relaxed codes, features of length 1 and the likeliest class."""
        F = out.F.to(out.h)
        classes = self.classifier.linear(F).argmax(dim=1)
        return super().outputs(out) | {"f": normalize(F, dim=1), "class": classes}

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Predict labels of the drawn rows that have none, on every worker."""
        self.iterations += 1
        if not self._single or self.iterations < self.config.supervised_iterations:
            return
        gather = self.problem.workers.gather_any
        rows, f, classes = gather(rows), gather(outputs["f"]), gather(outputs["class"])
        unknown = ~self._known[rows]
        rows, classes = rows[unknown], classes[unknown].long()
        if len(rows):
            sums = _nearest_sums(f[unknown], f, self.config.neighbours)
            confidence = 1 - sums / sums.max().clamp(min=1e-12)
            self.classes[rows] = classes.to(self.classes)
            self.confidence[rows] = confidence.to(self.confidence)

    def _labels(self, batch: Batch) -> Tensor:
        """Return Y [N, C] with predicted classes."""
        predicted = self.classes[batch.rows]
        Y = one_hot(predicted.clamp(min=0), self.problem.classes) * (predicted >= 0)[:, None]
        return torch.maximum(batch.Y, Y.to(batch.Y))


def _nearest_sums(f: Tensor, f_all: Tensor, nearest: int) -> Tensor:
    """Return the sum of distances of rows f [m, d] to the nearest of f_all [n, d], itself among."""
    count = min(nearest + 1, len(f_all))
    parts = [torch.cdist(f[part], f_all).topk(count, largest=False) for part in chunks(len(f), 512)]
    return torch.cat([part.values.sum(dim=1) for part in parts])
