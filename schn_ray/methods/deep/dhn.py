"""DHN: Deep Hashing Network (Zhu, Long, Wang and Cao, AAAI 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, PublishedFigure
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import balanced_mean, logcosh_quantisation, pair_nll


class DhnConfig(MethodConfig):
    """Settings of DHN.

    Attributes:
        pair: weight of the likelihood of the pairs.
        quantization: weight of the pull to -1 or +1; the paper chose it by cross-validation.
        balance: weigh similar and dissimilar pairs alike; not in the paper. Without it, pairs of
            classes may get one code and keep it.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 1.0))] = 0.1
    balance: Annotated[bool, Searched(choices=(True, False))] = True


class Dhn(DeepMethod[DhnConfig]):
    """Deep Hashing Network: the likelihood of pairs, and a smooth pull to the corners.

    L = mean_ij [softplus(theta_ij) - A_ij theta_ij] + lambda mean log cosh(|u| - 1), theta = u_i .
    u_j / 2, u = tanh h, pairs of the batch. The paper's, from memory and a port; the authors' later
    library has cosines in place of products. ``balance`` is this project's. Published with SGD,
    momentum 0.9, the hash layer at ten times the backbone's rate.
    """

    Config = DhnConfig
    paper = Paper(
        "Deep Hashing Network for Efficient Similarity Retrieval",
        "AAAI 2016",
        figures=(PublishedFigure("CIFAR-10, 48 bits", ".621", "AlexNet", "the paper, as quoted"),),
    )

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the likelihood of own rows with all rows, and the pull to the corners."""
        U, A = torch.tanh(out.h), batch.similar
        likelihood = pair_nll(U @ batch.gather(U).T / 2, A)
        balance = self.config.balance
        pair = balanced_mean(likelihood, batch.pairs, batch) if balance else likelihood.mean()
        return {"pair": pair, "quantization": logcosh_quantisation(U)}
