"""HyP^2 loss (Xu et al., ACM MM 2022): proxies, and pairs where rows have several labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

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
from schn_ray.methods.centres import guaranteed_distance
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, counted_mean
from schn_ray.models.encoder import Encoder

# least distance of the best linear codes of K bits with 2^1, 2^2, ... words (codetables.de)
_LINEAR = {
    8: (8, 5, 4, 4, 2, 2, 2, 1),
    12: (12, 8, 6, 6, 4, 4, 4, 3, 2, 2, 2, 1),
    16: (16, 10, 8, 8, 8, 6, 6, 5, 4, 4, 4, 2),
    24: (24, 16, 13, 12, 12, 10, 10, 8, 8, 8, 8, 8),
    32: (32, 21, 18, 16, 16, 16, 14, 13, 12, 12, 12, 10),
    36: (36, 24, 20, 18, 17, 16, 16, 16, 14, 14, 12, 12),
    48: (48, 32, 27, 24, 24, 24, 22, 22, 20, 20, 18, 18),
    64: (64, 42, 36, 33, 32, 32, 32, 29, 28, 28, 26, 26),
    96: (96, 64, 54, 50, 48, 48, 48, 46, 44, 44, 42, 41),
    128: (128, 85, 72, 68, 64, 64, 64, 64, 60, 60, 58, 57),
}


class Hyp2Config(MethodConfig):
    """Settings of HyP^2.

    Attributes:
        positive: weight of the pull to the proxies of a row's labels.
        negative: weight of the push away from the other proxies.
        pair: weight of the push between rows of several labels that share none, beta.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4, backbone_rate=0.5)
    positive: Weight = 1.0
    negative: Weight = 1.0
    pair: Annotated[Weight, Searched(log=(0.05, 5.0))] = 0.5


class Hyp2(DeepMethod[Hyp2Config]):
    """HyP^2: learned proxies of classes, and pairs of rows that have several labels.

    L = mean over y_ic = 1 of (1 - cos(h_i, P_c)) + mean over y_ic = 0 of max(0, cos(h_i, P_c) -
    zeta) + beta mean over pairs of rows with several labels and none in common of max(0, cos(h_i,
    h_j) - zeta). zeta = 1 - 2 d / K, d the least distance that the best linear code has; where no
    table has it, the one surely reached. All is the paper's, but that rows without a label count
    for nothing. Published with SGD 0.01 to 0.02, halved every 10 of 100 epochs.
    """

    Config = Hyp2Config
    paper = Paper(
        "HyP2 Loss: Beyond Hypersphere Metric Space for Multi-label Image Retrieval",
        "ACM MM 2022",
        figures=(
            PublishedFigure(
                "MIRFlickr, 12 24 36 48 bits", ".845 .881 .893 .901 @1000", "AlexNet", "the paper"
            ),
            PublishedFigure(
                "NUS-WIDE of 21 classes, 12 24 36 48 bits",
                ".794 .822 .831 .843 @5000",
                "AlexNet",
                "the paper",
            ),
        ),
    )

    def __init__(self, config: Hyp2Config, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.proxies = nn.Parameter(torch.empty(problem.classes, problem.bits))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")
        self.zeta = 1 - 2 * _code_distance(problem.classes, problem.bits) / problem.bits

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the pull to own proxies, and the pushes from others and between rows."""
        Y, count = batch.Y[batch.own], batch.Y.sum(dim=1)
        labelled = (count > 0).to(Y)[batch.own]
        near = cosines(out.h, self.proxies.to(out.h))
        unlike = (Y @ batch.Y.T == 0).to(Y)
        pairs = unlike * (count > 1).to(Y)[batch.own][:, None] * (count > 1).to(Y)
        between = cosines(out.h, batch.gather(out.h))
        return {
            "positive": counted_mean(1 - near, Y, batch),
            "negative": counted_mean(self._excess(near), (1 - Y) * labelled[:, None], batch),
            "pair": counted_mean(self._excess(between), pairs, batch),
        }

    def _excess(self, cosine: Tensor) -> Tensor:
        return (cosine - self.zeta).clamp(min=0)


def _code_distance(classes: int, bits: int) -> int:
    known, needed = _LINEAR.get(bits, ()), max(classes - 1, 1).bit_length()
    return known[needed - 1] if needed <= len(known) else guaranteed_distance(classes, bits)
