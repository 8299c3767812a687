"""CSQ: Central Similarity Quantization (Yuan et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
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
from schn_ray.methods.centres import label_set_centres
from schn_ray.methods.losses import labelled_mean
from schn_ray.models.encoder import Encoder


class CsqConfig(MethodConfig):
    """Settings of CSQ.

    Attributes:
        central: weight of the pull to the centre.
        quantization: weight of the pull to -1 or +1.
    """

    # published for ResNet; here with this project's schedule, as the published one has 90 epochs
    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "alexnet", "weights": "DEFAULT"},
        "optimiser": {"learning_rate": 1e-4, "backbone_rate": 0.05},
    }
    central: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-4, 1.0))] = 0.05


class Csq(DeepMethod[CsqConfig]):
    """Central Similarity Quantization: every label set has a fixed centre, and its images go there.

    L = mean softplus(-2 t h) + lambda mean (|tanh h| - 1)^2, where t [N, K] are the centres of the
    rows' label sets. A class's centre is a row of a Hadamard matrix; a set's is the majority of its
    classes' centres, ties drawn at random. Rows without a label count for nothing. Centres beyond
    Hadamard's rows are this project's (``methods.centres``), as the paper draws them at random.
    """

    Config = CsqConfig
    centres: Tensor
    paper = Paper(
        "Central Similarity Quantization for Efficient Image and Video Retrieval",
        "CVPR 2020",
        figures=(
            PublishedFigure(
                "ImageNet100, 16 32 64 bits", ".851 .865 .873 @1000", "ResNet-50", "authors' page"
            ),
            PublishedFigure(
                "ImageNet100, 16 32 64 bits", ".601 .653 .695 @1000", "AlexNet", "authors' page"
            ),
            PublishedFigure(
                "NUS-WIDE, 16 32 64 bits", ".810 .825 .839 @5000", "ResNet-50", "authors' page"
            ),
        ),
    )

    def __init__(self, config: CsqConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        centres = problem.drawn(partial(label_set_centres, problem.label_sets))
        self.register_buffer("centres", torch.from_numpy(centres).float())  # [L, K]

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the pull to the centres and to the corners, of rows with a label."""
        own = batch.rows[batch.own]
        t = self.centres[self.problem.label_sets.set_of_row[own]].to(out.h)
        central = softplus(-2 * t * out.h).mean(dim=1)
        corners = (torch.tanh(out.h).abs() - 1).square().mean(dim=1)
        return {
            "central": labelled_mean(central, batch),
            "quantization": labelled_mean(corners, batch),
        }
