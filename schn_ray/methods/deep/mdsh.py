"""MDSH: hash centres with a minimal distance (Wang et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

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
from schn_ray.methods.centres import class_centres
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import (
    cosines,
    counted_mean,
    labelled_mean,
    similar_to_all,
    square_quantisation,
)
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder


class MdshConfig(MethodConfig):
    """Settings of MDSH.

    Attributes:
        central: weight of the pull to the centres.
        bank: weight of the pull to codes of similar rows, beta.
        quantization: weight of the pull to -1 or +1.
        first_iterations: outer iterations without the bank; published 9 epochs.
        batch_norm: normalise each bit over the batch.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4, weight_decay=1e-5)
    central: Weight = 1.0
    bank: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-5, 1e-1))] = 1e-4
    first_iterations: Annotated[int, Field(ge=0)] = 3
    batch_norm: bool = True


class Mdsh(DeepMethod[MdshConfig]):
    """MDSH: centres that are far apart, and a bank of the codes of all rows.

    With p = softmax(sqrt(K) cos(u, T)): L = -mean_ic [y log p + (1 - y) log(1 - p)] + beta mean
    over similar pairs of softplus((1 - cos(u_i, v_j)) / 2) + lambda mean (|u| - 1)^2. Ours: the
    bank v_j is the row's own code of its last step, where the paper has a second network that
    follows the first; rows not seen yet do not count; centres are ``class_centres``, which reach
    the distance that the paper's solver aims at. Published with RMSprop 1e-5 in batches of 64.
    """

    Config = MdshConfig
    labels = "single"
    centres: Tensor  # T [C, K]
    codes: Tensor  # v [n, K]; 0 for a row not seen yet
    iterations: Tensor
    paper = Paper(
        "Deep Hashing with Minimal-Distance-Separated Hash Centers",
        "CVPR 2023",
        figures=(
            PublishedFigure(
                "ImageNet100, 16 32 64 bits",
                ".732 .768 .797 @1000",
                "ResNet-50",
                "an independent rerun",
            ),
        ),
    )

    def __init__(self, config: MdshConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        centres = problem.drawn(partial(class_centres, problem.classes))
        self.register_buffer("centres", centres)
        self.register_buffer("codes", torch.zeros(problem.rows, problem.bits))
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))

    @classmethod
    def choose_head(cls, config: MdshConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with batch normalisation."""
        return head.spec().model_copy(update={"batch_norm": config.batch_norm})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the pulls to centres, to codes of similar rows, and to the corners."""
        U, Y = torch.tanh(out.h), batch.Y[batch.own]
        logits = self.problem.bits**0.5 * cosines(U, self.centres.to(U))
        log_p = torch.log_softmax(logits, dim=1)
        entries = torch.where(Y > 0, log_p, torch.log1p(-log_p.exp().clamp(max=1 - 1e-6)))
        bank = self._bank_loss(U, batch)
        self.codes[batch.rows] = batch.gather(U.detach()).to(self.codes)
        return {
            "central": labelled_mean(-entries.mean(dim=1), batch),
            "bank": bank,
            "quantization": square_quantisation(U),
        }

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Count the iterations."""
        self.iterations += 1

    def _bank_loss(self, U: Tensor, batch: Batch) -> Tensor:
        if self.iterations < self.config.first_iterations:
            return U.sum() * 0
        codes = self.codes.to(U)
        pairs = similar_to_all(batch, self.problem.label_sets) * codes.any(dim=1).to(U)
        return counted_mean(softplus((1 - cosines(U, codes)) / 2), pairs, batch)
