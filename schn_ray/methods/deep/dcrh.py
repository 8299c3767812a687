"""DCRH: Deep Category-Level and Regularized Hashing (Chen and Lu, T-Cybernetics 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.classifiers import LabelClassifier, Reduction
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, counted_mean, square_quantisation
from schn_ray.methods.triplets import hinge_triplets, soft_hamming, violated
from schn_ray.models.encoder import Encoder


class DcrhConfig(MethodConfig):
    """Settings of DCRH.

    Attributes:
        hash: weight of the triplets of codes.
        feature: weight of the same triplets of features.
        classification: weight of the classifier on the codes.
        quantization: weight of the pull to -1 or +1; much more of it drives all rows into one
            corner.
        margin: of codes, in bits.
        feature_margin: of the features' cosines.
        reduction: over classes, where rows have several labels.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    hash: Weight = 1.0
    feature: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    classification: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 0.3))] = 0.1
    margin: Annotated[Weight, Searched(log=(1.0, 8.0))] = 4.0
    feature_margin: Weight = 0.5
    reduction: Reduction = "mean"


class Dcrh(DeepMethod[DcrhConfig]):
    """DCRH, a reconstruction: triplets of codes and of features, and a classifier on the codes.

    L = mean over violated triplets of max(0, m + D_ip - D_in) / K, D the soft Hamming distance,
    + the same triplets' max(0, 1/2 - cos(F_i, F_p) + cos(F_i, F_n)) + CE(u W + b, y) + lambda mean
    (|u| - 1)^2. Only the abstract could be read: it names these four parts and the selection of
    triplets. All equations and numbers are this project's.
    """

    Config = DcrhConfig
    paper = Paper(
        "Deep Category-Level and Regularized Hashing With Global Semantic Similarity Learning",
        "IEEE T-Cybernetics 2021; equations reconstructed from the abstract",
    )

    def __init__(self, config: DcrhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.bits, problem, config.reduction)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the triplets of codes and features, the classifier, the pull to the corners."""
        U, F, config = torch.tanh(out.h), out.F.to(out.h), self.config
        D, apart = soft_hamming(U, batch.gather(U)), -cosines(F, batch.gather(F))
        codes = hinge_triplets(D, config.margin, batch)
        features = hinge_triplets(apart, config.feature_margin, batch)
        selected = violated(codes)
        return {
            "hash": counted_mean(codes.values, selected, batch) / self.problem.bits,
            "feature": counted_mean(features.values, selected, batch),
            "classification": self.classifier(U, batch),
            "quantization": square_quantisation(U),
        }
