"""DNNH: Simultaneous Feature Learning and Hash Coding (Lai, Pan, Liu and Yan, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.triplets import hinge_triplets, soft_hamming, triplet_mean


class DnnhConfig(MethodConfig):
    """Settings of DNNH.

    Attributes:
        triplet: weight of the only term.
        margin: in bits; published 1.
        threshold: half the width of the part of a sigmoid that has a gradient; 0.5 is all of it.
            The paper's value is not known; a small one stops bits before they have sorted out.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    triplet: Weight = 1.0
    margin: Annotated[Weight, Searched(log=(0.5, 8.0))] = 1.0
    threshold: Annotated[float, Field(gt=0, le=0.5), Searched(choices=(0.1, 0.3, 0.5))] = 0.5


class Dnnh(DeepMethod[DnnhConfig]):
    """DNNH: a row must be nearer to a similar row than to any that is not, by a margin.

    With p = sigmoid(2 h), set to 0 or 1 outside 0.5 +- threshold: L = mean over triplets of max(0,
    m + |p_i - p_s|^2 - |p_i - p_d|^2). Ours: all triplets of a batch in place of drawn ones, and
    any head in place of the paper's, in which each bit reads a slice of the features of its own.
    Published with SGD, momentum 0.9, in batches of 64 triplets.
    """

    Config = DnnhConfig
    paper = Paper(
        "Simultaneous Feature Learning and Hash Coding with Deep Neural Networks", "CVPR 2015"
    )

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean loss of the triplets of own rows with all rows."""
        p, width = torch.sigmoid(2 * out.h), self.config.threshold
        outside = (p - 0.5).abs() > width
        p = torch.where(outside, (p > 0.5).to(p), p)
        signs = 2 * p - 1
        D = soft_hamming(signs, batch.gather(signs))
        return {"triplet": triplet_mean(hinge_triplets(D, self.config.margin, batch), batch)}
