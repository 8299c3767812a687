"""DRLIH: Deep Reinforcement Learning for Image Hashing (Peng, Zhang and Ye, TMM 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.triplets import hinge_triplets, soft_hamming, triplet_mean
from schn_ray.models.config import HeadConfig, HeadSpec


class DrlihConfig(MethodConfig):
    """Settings of DRLIH.

    Attributes:
        triplet: weight of the triplets; published 1 - lambda.
        policy: weight of the actions' likelihood times the triplets' loss, lambda.
        margin: of the distances of probabilities; published 1.
        hidden: width of the recurrent layer; published the 4,096 of VGG's features.
        shared_output: all bits read the recurrent layer by the same weights, as published. With
            weights of its own for each bit, no seed ends far below the others.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    triplet: Weight = 0.999
    policy: Annotated[Weight, Searched(log=(1e-4, 0.1))] = 0.001
    margin: Annotated[Weight, Searched(log=(0.5, 4.0))] = 1.0
    hidden: Count = 256
    shared_output: bool = False


class Drlih(DeepMethod[DrlihConfig]):
    """DRLIH: a recurrent layer decides bit after bit, trained by triplets of its probabilities.

    With p = sigmoid(2 h): L = (1 - lambda) R + lambda R' mean_i -log prob(a_i) / K. R is the mean
    over triplets of max(0, m + |p_i - p_s| - |p_i - p_d|), R' its value, and a_i the likelier
    action of each bit. By the authors' code, which samples no action despite the name. Ours: all
    triplets of a batch; the features enter every step, as in the paper; an orthogonal start of the
    recurrence; bits with weights of their own. Published with SGD 1e-3, momentum 0.9, in batches of
    16 triplets, VGG-19. The weakest of its family where rows have several labels.
    """

    Config = DrlihConfig
    paper = Paper("Deep Reinforcement Learning for Image Hashing", "IEEE TMM 2020")

    @classmethod
    def choose_head(cls, config: DrlihConfig, head: HeadConfig) -> HeadSpec:
        """Return the recurrent layer, whatever the settings of the layers."""
        return HeadSpec(kind="recurrent", hidden=config.hidden, shared=config.shared_output)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the triplets of own rows with all rows, and the likelihood of own actions."""
        signs = torch.tanh(out.h)
        # the root has no gradient at a distance of 0, which rows have from themselves
        D = (soft_hamming(signs, batch.gather(signs)) + 1e-12).sqrt()
        R = triplet_mean(hinge_triplets(D, self.config.margin, batch), batch)
        unlikely = -logsigmoid(2 * out.h.abs()).mean()
        of_all = batch.workers.sum(R.detach() * batch.share) / batch.workers.size
        return {"triplet": R, "policy": unlikely * of_all}
