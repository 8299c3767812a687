"""DLBHC: Deep Learning of Binary Hash Codes (Lin, Yang, Hsiao and Chen, CVPRW 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from schn_ray.core.settings import Weight
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
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.models.encoder import Encoder


class DlbhcConfig(MethodConfig):
    """Settings of DLBHC.

    Attributes:
        classification: weight of the only term.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    classification: Weight = 1.0


class Dlbhc(DeepMethod[DlbhcConfig]):
    """Deep Learning of Binary Hash Codes: a classifier on a layer of sigmoids, and nothing else.

    p = sigmoid(2 h), so that p > 0.5 is sign(h), and L = CE(p W + b, y). Nothing pulls p to 0 or 1.
    The paper has one label a row; for several, the binary cross-entropy summed over classes is
    ours. Published with SGD 1e-3, momentum 0.9, the classifier at ten times the rate, on all 50,000
    images of CIFAR-10.
    """

    Config = DlbhcConfig
    paper = Paper(
        "Deep Learning of Binary Hash Codes for Fast Image Retrieval",
        "CVPRW 2015",
        figures=(
            PublishedFigure(
                "CIFAR-10, 12 32 48 bits",
                ".893 .897 .897 @1000",
                "AlexNet, 50,000 training rows",
                "authors' code",
            ),
        ),
    )

    def __init__(self, config: DlbhcConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.bits, problem)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the classifier's loss of rows with a label."""
        return {"classification": self.classifier(torch.sigmoid(2 * out.h), batch)}
