"""SDC: Similarity Distribution Calibration (Ng et al., BMVC 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from scipy.stats import beta
from torch import Tensor
from torch.nn.functional import cosine_similarity

from schn_ray.core.bits import sign
from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, PublishedFigure
from schn_ray.methods.losses import cosines_of_halves
from schn_ray.models.config import HeadConfig, HeadSpec


class SdcConfig(MethodConfig):
    """Settings of SDC.

    Attributes:
        calibration: weight of the distance of cosines from their targets.
        quantization: weight of 1 - cos(h, sign h); published 1, and 0.01 for instances.
        shape: both parameters of the Beta distribution of the targets.
        batch_norm: normalise each bit over the batch.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "alexnet", "weights": "DEFAULT", "frozen": True},
        "head": {"kind": "mlp", "hidden": 4096},
        "optimiser": {"learning_rate": 1e-4, "weight_decay": 5e-4},
    }
    calibration: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-2, 1.0))] = 1.0
    shape: Annotated[float, Field(gt=0), Searched(log=(1.0, 20.0))] = 5.0
    batch_norm: bool = True


class Sdc(DeepMethod[SdcConfig]):
    """SDC: code cosines are spread as a Beta distribution, in the order of the features' cosines.

    Rows i and i + N/2 of a batch are pairs. The pair with the j-th least cosine of features gets
    the target c_j = 2 BetaInv((2 j - 1) / N; 5, 5) - 1, and L = mean_j |cos(h_i, h_i') - c_j| +
    lambda mean_i (1 - cos(h_i, sign h_i)). It needs no labels. All is the paper's but for ReLU in
    place of GELU in the head. Features are constants: meant for a frozen backbone. Published with
    Adam 1e-4, 100 epochs in batches of 64.
    """

    Config = SdcConfig
    labels = "none"
    paper = Paper(
        "Unsupervised Hashing with Similarity Distribution Calibration",
        "BMVC 2023",
        figures=(
            PublishedFigure("CIFAR-10 and ImageNet100, 64 bits", ".630, .804", "", "the paper"),
        ),
    )

    @classmethod
    def choose_head(cls, config: SdcConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with batch normalisation."""
        return head.spec().model_copy(update={"batch_norm": config.batch_norm})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the distance from the targets, of the whole batch, and the pull to the corners."""
        of_features = cosines_of_halves(batch.gather(out.F.detach().to(out.h)))
        order = of_features.argsort(stable=True)
        of_codes = cosines_of_halves(batch.gather(out.h))[order]
        targets = _targets(len(order), self.config.shape).to(of_codes)
        return {
            "calibration": (of_codes - targets).abs().mean(),
            "quantization": (1 - cosine_similarity(out.h, sign(out.h))).mean(),
        }


@lru_cache
def _targets(pairs: int, shape: float) -> Tensor:
    levels = (2 * torch.arange(1, pairs + 1).numpy() - 1) / (2 * pairs)
    return torch.from_numpy(2 * beta.ppf(levels, shape, shape) - 1)
