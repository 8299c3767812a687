"""DCH: Deep Cauchy Hashing (Cao et al., CVPR 2018)."""

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
    PairKinds,
    Paper,
    PublishedFigure,
)
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import balanced_mean, cosines, other_rows

_NEAR = 1e-3  # bits: log(1 + gamma / D) has no value at D = 0


class DchConfig(MethodConfig):
    """Settings of DCH.

    Attributes:
        pair: weight of the likelihood of the pairs.
        quantization: weight of the distance of |u| from the corner of ones.
        gamma: distance in bits at which a pair is as likely similar as not; scale it with K, as the
            loss is nearly flat where it is above K/2.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    pair: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 1.0))] = 0.1
    gamma: Annotated[float, Field(gt=0), Searched(log=(2.0, 50.0))] = 20.0


class Dch(DeepMethod[DchConfig]):
    """Deep Cauchy Hashing: the likelihood of pairs falls fast with the first bits of distance.

    A pair at the distance D = K/2 (1 - cos(u_i, u_j)) is similar with the probability gamma /
    (gamma + D). L = [mean over similar pairs of log(1 + D / gamma)] + [mean over dissimilar pairs
    of log(1 + gamma / D)] + lambda mean_i log(1 + d(|u_i|, 1) / gamma), pairs i != j. These are the
    paper's terms as an independent code names them; the authors' code has squared distances, other
    weights and lambda 0. D is at least 0.001 here. Made for look-ups within a radius of 2.
    """

    Config = DchConfig
    paper = Paper(
        "Deep Cauchy Hashing for Hamming Space Retrieval",
        "CVPR 2018",
        figures=(
            PublishedFigure(
                "CIFAR-10, 48 bits",
                ".810",
                "AlexNet, gallery of 59,000 with the training rows",
                "an independent port",
            ),
        ),
    )

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the likelihood of own rows with all others, and the pull to the corners."""
        U, A, gamma, bits = torch.tanh(out.h), batch.similar, self.config.gamma, self.problem.bits
        D = bits / 2 * (1 - cosines(U, batch.gather(U)))
        similar = torch.log1p(D.clamp(min=0) / gamma)
        dissimilar = torch.log1p(gamma / D.clamp(min=_NEAR))
        likelihood = torch.where(A > 0, similar, dissimilar)
        corner = bits / 2 * (1 - cosines(U.abs(), U.new_ones(1, bits)))
        pairs = PairKinds.of(A, batch.workers, other_rows(batch))
        return {
            "pair": balanced_mean(likelihood, pairs, batch),
            "quantization": torch.log1p(corner.clamp(min=0) / gamma).mean(),
        }
