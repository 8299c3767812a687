"""OrthoHash: One Loss for All (Hoe et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from schn_ray.core.settings import Searched, Share, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
    PublishedFigure,
)
from schn_ray.methods.centres import Kind, centres_of_classes
from schn_ray.methods.classifiers import soft_cross_entropy
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, labelled_mean
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder


class OrthohashConfig(MethodConfig):
    """Settings of OrthoHash.

    Attributes:
        classification: weight of the only term.
        margin: m, by which a row's cosine with its own centre must lead.
        scale: s of the softmax; None for the published sqrt(K). The authors' sqrt(2) log(C - 1) is
            as good or better.
        centres: of the classes: ``random`` as published, or ``separated``, this project's.
        batch_norm: normalise each bit over the batch.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4, backbone_rate=0.1)
    classification: Weight = 1.0
    margin: Annotated[Share, Searched(linear=(0.0, 0.5))] = 0.2
    scale: Annotated[float, Field(gt=0)] | None = None
    centres: Annotated[Kind, Searched()] = "random"
    batch_norm: bool = True


class Orthohash(DeepMethod[OrthohashConfig]):
    """OrthoHash: a softmax with a margin over the cosines with fixed class centres.

    L = -mean_i sum_c y_ic / |y_i| log softmax_c(s (cos(h_i, T_c) - m y_ic)), of rows with a label.
    All of it is the paper's, several labels a row included; only ``separated`` centres are ours.
    Published with Adam at 1e-4, a tenth of it for the backbone, 100 epochs in batches of 256.
    """

    Config = OrthohashConfig
    centres: Tensor  # T [C, K]
    paper = Paper(
        "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective",
        "NeurIPS 2021",
        figures=(
            PublishedFigure("ImageNet100, 64 bits", ".711 @1000", "AlexNet", "the paper"),
            PublishedFigure(
                "CIFAR-10, 64 bits",
                ".824 with margin 0.3",
                "AlexNet, gallery of 59,000 with the training rows",
                "authors' page",
            ),
        ),
    )

    def __init__(self, config: OrthohashConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        centres = problem.drawn(partial(centres_of_classes, config.centres, problem.classes))
        self.register_buffer("centres", centres)
        self._scale = config.scale or problem.bits**0.5

    @classmethod
    def choose_head(cls, config: OrthohashConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with batch normalisation."""
        return head.spec().model_copy(update={"batch_norm": config.batch_norm})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of own rows."""
        Y = batch.Y[batch.own]
        logits = self._scale * (cosines(out.h, self.centres.to(out.h)) - self.config.margin * Y)
        return {"classification": labelled_mean(soft_cross_entropy(logits, Y), batch)}
