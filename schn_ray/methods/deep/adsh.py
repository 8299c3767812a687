"""ADSH: Asymmetric Deep Supervised Hashing (Jiang and Li, AAAI 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
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
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.discrete_steps import chunks, solve_bits
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.deep.schn.code_update import neighbour_sums, pair_counts
from schn_ray.models.encoder import Encoder


class AdshConfig(MethodConfig):
    """Settings of ADSH.

    Attributes:
        pair: weight of the squares of u . v - K T.
        quantization: weight of |u_i - v_i|^2 over all pairs, gamma; published 200.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1.0, 1000.0))] = 200.0


class Adsh(DeepMethod[AdshConfig]):
    """Asymmetric Deep Supervised Hashing: drawn rows are trained against codes of all rows.

    L = mean_ij (u_i . v_j - K T_ij)^2 + gamma mean_ij |u_i - v_i|^2 / n, over rows i of a batch and
    all n training rows j; T is 1 where they share a label, else -N1 / N0. After an iteration the
    codes V of all rows are solved bit by bit, from Q = K T^T U + gamma U and U^T U of the drawn
    rows. No matrix of pairs is built: sums over label sets give the same. Ours: random first codes
    (published zeros give no direction), and N1, N0 of all pairs. Published with SGD 1e-3, 2,000
    drawn rows, 50 iterations of 3 epochs; the paper's figures rank V, here the encoder is ranked.

    Raises:
        SchnRayError: no two training rows share a label, or all do.
    """

    Config = AdshConfig
    gram: Tensor  # V^T V / n [K, K]
    pull: Tensor  # sum_j T_gj v_j / n of each label set g [L, K]
    squares: Tensor  # sum_j T_gj^2 / n [L]
    paper = Paper(
        "Asymmetric Deep Supervised Hashing",
        "AAAI 2018",
        figures=(
            PublishedFigure(
                "CIFAR-10, 12 to 48 bits",
                ".894 .924 .933 .943",
                "CNN-F, a gallery of 59,000 codes solved from their own labels",
                "authors' page",
            ),
        ),
    )

    def __init__(self, config: AdshConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        sizes, sets = problem.label_sets.sizes, problem.label_sets.sets
        similar, dissimilar = pair_counts(sizes, sets)
        self._r = similar / dissimilar
        counts = neighbour_sums(sets, sizes[:, None].astype(np.float64))[:, 0] / problem.rows
        self._set_of_row = torch.from_numpy(problem.label_sets.set_of_row)
        bits, double = problem.bits, torch.float64
        self.register_buffer("gram", torch.zeros(bits, bits, dtype=double))
        self.register_buffer("pull", torch.zeros(len(sizes), bits, dtype=double))
        self.register_buffer("squares", torch.from_numpy(counts + self._r**2 * (1 - counts)))

    def start(self, codes: CodeTable) -> None:
        """Draw a code for each row; ``update`` changes those of rows that were not drawn, too."""
        problem = self.problem
        rng = np.random.default_rng([problem.seed, problem.bits])
        signs = rng.integers(0, 2, (problem.rows, problem.bits)) * 2 - 1
        codes.write(np.arange(problem.rows), torch.from_numpy(signs).float())
        self._codes = codes
        self._sum_codes()

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the squares of own rows with all training rows, and the pull to their codes."""
        U, bits = torch.tanh(out.h), self.problem.bits
        sets = self._set_of_row[batch.rows[batch.own]]
        pull, squares = self.pull[sets].to(U), self.squares[sets].to(U)
        products = ((U @ self.gram.to(U)) * U).sum(dim=1) - 2 * bits * (U * pull).sum(dim=1)
        off = (U - batch.B[batch.own]).square().sum(dim=1) / self.problem.rows
        return {"pair": (products + bits**2 * squares).mean(), "quantization": off.mean()}

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Solve the codes of all training rows; every worker has the whole table of them."""
        problem = self.problem
        drawn = problem.workers.gather_any(rows)
        U = problem.workers.gather_any(outputs["U"]).double()
        sums = torch.zeros_like(self.pull, device="cpu").index_add_(0, self._set_of_row[drawn], U)
        pull, V = problem.bits * self._over_similar(sums), U.T @ U
        of_row = torch.full((problem.rows,), -1)
        of_row[drawn] = torch.arange(len(drawn))
        for part in chunks(problem.rows):
            numbers = np.arange(part.start, part.stop)
            Q = pull[self._set_of_row[part]]
            is_drawn = of_row[part] >= 0
            Q[is_drawn] += self.config.quantization * U[of_row[part][is_drawn]]
            self._codes.write(numbers, solve_bits(self._codes.read(numbers), Q, V))
        self._sum_codes()

    def _over_similar(self, sums: Tensor) -> Tensor:
        """Return sum_j T_gj x_j of each label set g, given the sums of x over label sets [L, K]."""
        similar = torch.from_numpy(neighbour_sums(self.problem.label_sets.sets, sums.numpy()))
        return (1 + self._r) * similar - self._r * sums.sum(dim=0)

    def _sum_codes(self) -> None:
        n = self.problem.rows
        gram, sums = (torch.zeros_like(x, device="cpu") for x in (self.gram, self.pull))
        for part in chunks(n):
            V = self._codes.read(np.arange(part.start, part.stop)).double()
            gram += V.T @ V
            sums.index_add_(0, self._set_of_row[part], V)
        self.gram.copy_(gram / n)
        self.pull.copy_(self._over_similar(sums) / n)
