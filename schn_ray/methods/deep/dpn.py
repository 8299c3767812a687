"""DPN: Deep Polarized Network (Fan et al., IJCAI 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

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
from schn_ray.methods.centres import (
    Kind,
    centres_of_classes,
    guaranteed_distance,
    least_distance,
)
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import labelled_mean
from schn_ray.models.encoder import Encoder


class DpnConfig(MethodConfig):
    """Settings of DPN.

    Attributes:
        polarization: weight of the hinge.
        size: weight of mean h^2; published 0.
        margin: m, how far beyond 0 an output must be.
        centres: of the classes: ``random`` as published, or ``separated``, this project's.
        adaptive: after each iteration, make a class's centre the majority of its rows' codes (the
            paper's DPN-A).
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    polarization: Weight = 1.0
    size: Annotated[Weight, Searched(choices=(0.0, 1e-3, 1e-2, 0.1, 1.0))] = 0.0
    margin: Annotated[Weight, Searched(log=(0.3, 3.0))] = 1.0
    centres: Annotated[Kind, Searched()] = "random"
    adaptive: bool = False


class Dpn(DeepMethod[DpnConfig]):
    """Deep Polarized Network: each output must lie on its centre's side, by a margin.

    L = mean_i sum_c y_ic sum_k max(0, m - h_ik T_ck), of rows with a label; no tanh. The paper's,
    but for ``separated`` centres and a guard: centres that ``adaptive`` brings nearer to each other
    than random codes surely can be are not taken, as an untrained network's would all be equal.
    Published with SGD 1e-4, momentum 0.9, 200 epochs in batches of 256, a hash layer without bias.
    """

    Config = DpnConfig
    centres: Tensor  # T [C, K]
    paper = Paper(
        "Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes",
        "IJCAI 2020",
        figures=(
            PublishedFigure(
                "ImageNet100, 64 bits",
                ".692 @1000",
                "AlexNet",
                "an independent run of many methods",
            ),
            PublishedFigure(
                "CIFAR-10, 48 bits",
                ".787",
                "AlexNet, gallery of 59,000 with the training rows",
                "an independent port",
            ),
        ),
    )

    def __init__(self, config: DpnConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        centres = problem.drawn(partial(centres_of_classes, config.centres, problem.classes))
        self.register_buffer("centres", centres)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the hinge of rows with a label, and the size of the outputs."""
        h, T = out.h, self.centres.to(out.h)
        of_class = (self.config.margin - h[:, None] * T).clamp(min=0).sum(dim=2)  # [b, C]
        polarization = (of_class * batch.Y[batch.own]).sum(dim=1)
        return {"polarization": labelled_mean(polarization, batch), "size": h.square().mean()}

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Move the centres to the majorities of their classes' codes, if they stay apart."""
        if not self.config.adaptive or self.problem.classes < 2:
            return
        label_sets = self.problem.label_sets
        Y = label_sets.sets[label_sets.set_of_row[rows.numpy()]]
        own = torch.from_numpy(Y.T @ sign(outputs["U"]).double().numpy())
        votes = self.problem.workers.sum(own).to(self.centres)
        T = torch.where(votes == 0, self.centres, sign(votes))
        if least_distance(T) >= guaranteed_distance(*T.shape):
            self.centres.copy_(T)
