"""GreedyHash (Su et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from schn_ray.core.bits import sign
from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
    PublishedFigure,
)
from schn_ray.methods.classifiers import soft_cross_entropy
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import labelled_mean
from schn_ray.models.encoder import Encoder


class GreedyhashConfig(MethodConfig):
    """Settings of GreedyHash.

    Attributes:
        classification: weight of the cross-entropy on the codes.
        quantization: weight of mean ||h| - 1|^3; published 0.1 for CIFAR, 1 for ImageNet.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4, backbone_rate=0.1)
    classification: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-2, 10.0))] = 0.1


class Greedyhash(DeepMethod[GreedyhashConfig]):
    """GreedyHash: a classifier on the codes themselves, whose gradient passes through the sign.

    L = CE(b W, y) + alpha mean ||h| - 1|^3 with b = sign(h) and, backwards, dL/dh = dL/db. The
    layer W has no bias. The paper has one label a row; the cross-entropy with the target y / |y|
    for several is others'. Published with SGD 1e-3, momentum 0.9, 50 epochs in batches of 32.
    """

    Config = GreedyhashConfig
    paper = Paper(
        "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding",
        "NeurIPS 2018",
        figures=(
            PublishedFigure(
                "ImageNet100, 64 bits",
                ".667 @1000",
                "AlexNet",
                "an independent run of many methods",
            ),
        ),
    )

    def __init__(self, config: GreedyhashConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = nn.Linear(problem.bits, problem.classes, bias=False)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy and the pull to -1 or +1, of rows with a label."""
        logits = self.classifier(straight_through_sign(out.h)).to(out.h)
        rows = soft_cross_entropy(logits, batch.Y[batch.own])
        corners = (out.h.abs() - 1).abs().pow(3).mean(dim=1)
        return {
            "classification": labelled_mean(rows, batch),
            "quantization": labelled_mean(corners, batch),
        }


def straight_through_sign(h: Tensor) -> Tensor:
    """Return sign(h), which passes gradients on as if it were h.

    Args:
        h: any shape.
    """
    # a difference of two equal numbers is exactly 0, so the codes are exact signs
    return sign(h.detach()) + (h - h.detach())
