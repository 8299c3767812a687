"""DSDH: Deep Supervised Discrete Hashing (Li, Sun, He and Tan, NeurIPS 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, PublishedFigure
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.discrete_steps import solve_bits
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import balanced_mean, pair_nll

Ratio = Annotated[float, Field(gt=0)]


class DsdhConfig(MethodConfig):
    """Settings of DSDH.

    Attributes:
        pair: weight of the likelihood of the pairs.
        quantization: weight of mean (u - b)^2; published 55 K / n.
        ridge: nu / mu, of the classifier's weights.
        outputs: eta / mu, of the outputs in the update; at the published 55, codes are the outputs'
            signs and nothing is left of the classifier.
        rounds: of classifier and codes in turn, an iteration.
        balance: weigh similar and dissimilar pairs alike; not in the paper.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-2, 3.0))] = 1.0
    ridge: Ratio = 0.1
    outputs: Annotated[Ratio, Searched(log=(1e-3, 55.0))] = 0.01
    rounds: Count = 10
    balance: Annotated[bool, Searched(choices=(True, False))] = True


class Dsdh(DeepMethod[DsdhConfig]):
    """Deep Supervised Discrete Hashing: pairs, and codes that a linear classifier reads well.

    L = pairs as DPSH's + w mean (u - b)^2. The codes B of the training rows and a classifier W
    minimise |Y - B W|^2 + (nu / mu) |W|^2 + (eta / mu) |B - U|^2 in turn: W in closed form, B bit
    by bit. The authors' code solves a batch's codes in its step; here those of all drawn rows are
    solved after an iteration, exactly on any number of workers. Published with SGD 1e-2 to 1e-6
    over 150 epochs.
    """

    Config = DsdhConfig
    paper = Paper(
        "Deep Supervised Discrete Hashing",
        "NeurIPS 2017",
        figures=(
            PublishedFigure(
                "CIFAR-10, 48 bits", ".820", "VGG-F, as for DPSH", "the paper, as quoted"
            ),
        ),
    )

    def start(self, codes: CodeTable) -> None:
        """Draw a code for each row: with zeros, the classifier would be 0 for ever."""
        problem = self.problem
        rng = np.random.default_rng([problem.seed, problem.bits])
        signs = rng.integers(0, 2, (problem.rows, problem.bits)) * 2 - 1
        codes.write(np.arange(problem.rows), torch.from_numpy(signs).float())

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the likelihood of own rows with all rows, and the distance from the codes."""
        U, A = torch.tanh(out.h), batch.similar
        likelihood = pair_nll(U @ batch.gather(U).T / 2, A)
        balance = self.config.balance
        pair = balanced_mean(likelihood, batch.pairs, batch) if balance else likelihood.mean()
        return {"pair": pair, "quantization": mse_loss(U, batch.B[batch.own])}

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor:
        """Solve classifier and codes [n_w, K] in turn."""
        label_sets, workers = self.problem.label_sets, self.problem.workers
        sets = label_sets.sets[label_sets.set_of_row[rows.numpy()]]
        Y = torch.from_numpy(sets.toarray()).double()
        ridge = self.config.ridge * torch.eye(B.shape[1], dtype=torch.float64)
        U, solved = outputs["U"].double(), B.double()
        for _ in range(self.config.rounds):
            gram, products = workers.sum(solved.T @ solved), workers.sum(solved.T @ Y)
            W = torch.linalg.solve(gram + ridge, products)  # [K, C]
            solved = solve_bits(solved, Y @ W.T + self.config.outputs * U, W @ W.T)
        return solved.to(B)
