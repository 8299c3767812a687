"""HashNet: Deep Learning to Hash by Continuation (Cao et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

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
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import balanced_mean, label_overlap, pair_nll
from schn_ray.models.encoder import Encoder


class HashnetConfig(MethodConfig):
    """Settings of HashNet.

    Attributes:
        pair: weight of the only term.
        alpha: theta_ij = alpha / K u_i . u_j; published 10.
        growth: beta = sqrt(1 + growth * step). Published 0.005 for 10,000 steps; set it so that
            beta ends near 7, at growth * steps = 50.
        overlap: weigh a similar pair by the share of their labels that both have; 1 for single
            labels.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    alpha: Annotated[float, Field(gt=0), Searched(log=(3.0, 30.0))] = 10.0
    growth: Annotated[Weight, Searched(log=(1e-3, 0.3))] = 0.005
    overlap: bool = True


class Hashnet(DeepMethod[HashnetConfig]):
    """HashNet: the balanced likelihood of pairs, under a tanh that grows into the sign.

    u = tanh(beta h) and L = [mean over similar pairs of l] + [mean over dissimilar pairs of l],
    l = softplus(theta) - A theta. The published loss weighs similar pairs by a constant of the
    training set, and has pairs across two half batches; here the halves are balanced in each batch.
    ``overlap`` is remembered of the paper and was not verified. Published with SGD 3e-4, momentum
    0.9, halved every 2,000 steps.
    """

    Config = HashnetConfig
    steps: Tensor  # of training so far: part of the state, as beta depends on it
    paper = Paper(
        "HashNet: Deep Learning to Hash by Continuation",
        "ICCV 2017",
        figures=(
            PublishedFigure("ImageNet100, 48 bits", ".663", "AlexNet", "the paper, as quoted"),
        ),
    )

    def __init__(self, config: HashnetConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the balanced likelihood of own rows with all rows."""
        beta = (1 + self.config.growth * self.steps.to(out.h)).sqrt()
        self.steps += 1
        U, A = torch.tanh(beta * out.h), batch.similar
        theta = self.config.alpha / self.problem.bits * (U @ batch.gather(U).T)
        likelihood = pair_nll(theta, A)
        if self.config.overlap:
            likelihood = likelihood * torch.where(A > 0, label_overlap(batch), 1)
        return {"pair": balanced_mean(likelihood, batch.pairs, batch)}
