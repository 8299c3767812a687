"""DPSH: Deep Pairwise-Supervised Hashing (Li, Wang and Kang, IJCAI 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    PairKinds,
    Paper,
    Problem,
    PublishedFigure,
)
from schn_ray.methods.losses import (
    balanced_mean,
    pair_nll,
    similar_to_all,
    square_quantisation,
)
from schn_ray.models.encoder import Encoder


class DpshConfig(MethodConfig):
    """Settings of DPSH.

    Attributes:
        pair: weight of the likelihood of the pairs.
        quantization: weight of the pull to -1 or +1; the published 50 at 12 bits and 5,000 rows, a
            weight of a sum, is 0.12 here.
        columns: what own rows are paired with: the ``batch``, or, as in the released code, the
            outputs of all rows in a ``table``, each as old as the row's last step.
        balance: weigh similar and dissimilar pairs alike; not in the paper. Without it, pairs of
            classes may get one code and keep it.
        tanh: bound the outputs; the released code does not.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "alexnet", "weights": "DEFAULT"},
        "optimiser": {"learning_rate": 1e-4},
    }
    pair: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 1.0))] = 0.1
    columns: Literal["batch", "table"] = "batch"
    balance: Annotated[bool, Searched(choices=(True, False))] = True
    tanh: bool = True


class Dpsh(DeepMethod[DpshConfig]):
    """Deep Pairwise-Supervised Hashing: the likelihood of similar pairs under products of codes.

    L = mean_ij [softplus(theta_ij) - A_ij theta_ij] + eta mean (|u| - 1)^2, theta = u_i . u_j / 2.
    As published: ``columns: table``, ``balance: false``, ``tanh: false`` and a rate of 1e-4 or
    less; a table with a fast optimiser collapses to a single code.
    """

    Config = DpshConfig
    paper = Paper(
        "Feature Learning based Deep Supervised Hashing with Pairwise Labels",
        "IJCAI 2016",
        figures=(
            PublishedFigure(
                "CIFAR-10, 12 24 32 48 bits",
                ".713 .727 .744 .757",
                "VGG-F, the gallery holds the training rows",
                "authors' code",
            ),
        ),
    )
    table: Tensor  # [n, K] outputs of all rows, each as of the row's last step

    def __init__(self, config: DpshConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        if config.columns == "table":
            self.register_buffer("table", torch.zeros(problem.rows, problem.bits))

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the likelihood of own rows with all columns, and the pull to the corners."""
        U = torch.tanh(out.h) if self.config.tanh else out.h
        columns, pairs = batch.gather(U), batch.pairs
        if self.config.columns == "table":
            self.table[batch.rows] = columns.detach().to(self.table)
            A = similar_to_all(batch, self.problem.label_sets)
            columns, pairs = self.table.to(U), PairKinds.of(A, batch.workers)
        likelihood = pair_nll(U @ columns.T / 2, pairs.similar)
        pair = balanced_mean(likelihood, pairs, batch) if self.config.balance else likelihood.mean()
        return {"pair": pair, "quantization": square_quantisation(U)}
