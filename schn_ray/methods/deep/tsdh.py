"""TSDH: two-stream deep hashing with class-specific centres (Deng et al., TNNLS 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.deep.schn.code_update import pair_counts
from schn_ray.methods.losses import target_similarity
from schn_ray.models.encoder import Encoder


class TsdhConfig(MethodConfig):
    """Settings of TSDH.

    Attributes:
        centre: weight of the only term.
        negative: target of dissimilar pairs: ``minus_one`` as published, ``zero``, or ``soft``,
            -N1 / N0 of the training pairs. Ten classes cannot all oppose each other, so -1 wastes
            two thirds of the bits.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    centre: Weight = 1.0
    negative: Annotated[Literal["minus_one", "zero", "soft"], Searched()] = "soft"


class Tsdh(DeepMethod[TsdhConfig]):
    """TSDH: a second network turns label sets into centres, and images are paired with these.

    L = mean_ij (u_i . l_j / K - T_ij)^2 with l = tanh of two linear layers of the labels, without
    an activation between them; T is 1 where rows i and j share a label, else ``negative``, whose
    default is this project's. From the authors' code; further terms of the paper, if any, were not
    seen. Their gallery is coded from its labels; here the encoder codes it. Published with Adam
    1e-3, epsilon 1, in batches of 24 over 100 epochs.

    Raises:
        SchnRayError: no two training rows share a label, or all do.
    """

    Config = TsdhConfig
    paper = Paper(
        "Two-Stream Deep Hashing With Class-Specific Centers for Supervised Image Search",
        "IEEE TNNLS 2020",
    )

    def __init__(self, config: TsdhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        hidden = -(-(problem.classes + problem.bits) // 2)
        self.label_network = nn.Sequential(
            nn.Linear(problem.classes, hidden), nn.Linear(hidden, problem.bits)
        )
        for parameter in self.label_network.parameters():
            nn.init.trunc_normal_(parameter, std=0.5, a=-1.0, b=1.0)
        similar, dissimilar = pair_counts(problem.label_sets.sizes, problem.label_sets.sets)
        soft = -similar / dissimilar
        self._negative = {"minus_one": -1.0, "zero": 0.0, "soft": soft}[config.negative]

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the squares of own rows with the centres of all rows."""
        # labels are known everywhere, so each worker computes all centres, and nothing is gathered
        centres = torch.tanh(self.label_network(batch.Y)).to(out.h)
        T = target_similarity(batch.similar, self._negative)
        products = torch.tanh(out.h) @ centres.T / self.problem.bits
        return {"centre": (products - T).square().mean()}
