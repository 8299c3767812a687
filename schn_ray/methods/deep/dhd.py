"""DHD: Deep Hash Distillation (Jang et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, cosine_similarity

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.classifiers import soft_cross_entropy
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, labelled_mean
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder

_LEAST = 1e-6  # of a likelihood, whose logarithm is taken


class DhdConfig(MethodConfig):
    """Settings of DHD.

    Attributes:
        classification: weight of the cross-entropy over the proxies.
        distillation: weight of the pull of distorted views to plain ones.
        quantization: weight of the likelihoods of -1 and +1.
        temperature: tau, which divides the cosines with proxies.
        deviation: of the likelihoods around -1 and +1.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(3e-4, backbone_rate=0.05, weight_decay=1e-5)
    classification: Weight = 1.0
    distillation: Annotated[Weight, Searched(log=(0.01, 10.0))] = 0.1
    quantization: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    temperature: Annotated[float, Field(gt=0), Searched(log=(0.05, 1.0))] = 0.2
    deviation: Annotated[float, Field(gt=0)] = 0.5


class Dhd(DeepMethod[DhdConfig]):
    """DHD: learned proxies of classes, and distorted views that follow their plain ones.

    With u = tanh of the normalised h, v of a distorted view: L = -mean_i sum_c y_ic / |y_i| log
    softmax_c(cos(u_i, P_c) / tau) + l1 mean_i (1 - cos(v_i, u_i)), u constant, + l2 [BCE(g+, u >=
    0) + BCE(g-, u < 0)], g+- = exp(-(u -+ 1)^2 / (2 sd^2)). All is the paper's but that the layer
    normalisation learns no scale, and that the first view is a plain one: its weak views are
    distorted at a fifth or half of the times. Published with Adam 3e-4, 500 epochs in batches of
    128. A step costs two of others: compare it at half of the epochs, too.
    """

    Config = DhdConfig
    views = ("plain", "distorted")
    paper = Paper("Deep Hash Distillation for Image Retrieval", "ECCV 2022")

    def __init__(self, config: DhdConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.proxies = nn.Parameter(torch.empty(problem.classes, problem.bits))
        nn.init.xavier_uniform_(self.proxies, gain=5 / 3)

    @classmethod
    def choose_head(cls, config: DhdConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with layer normalisation."""
        return head.spec().model_copy(update={"layer_norm": True})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of plain views, the pull of distorted ones, the likelihoods."""
        U, V = torch.tanh(out.h), torch.tanh(out.other.h)
        logits = cosines(U, self.proxies.to(U)) / self.config.temperature
        return {
            "classification": labelled_mean(soft_cross_entropy(logits, batch.Y[batch.own]), batch),
            "distillation": (1 - cosine_similarity(V, U.detach())).mean(),
            "quantization": self._unlikely(U, 1) + self._unlikely(U, -1),
        }

    def _unlikely(self, U: Tensor, corner: int) -> Tensor:
        """Return the cross-entropy of being near a corner where it is the nearer one."""
        likelihood = torch.exp(-(U - corner).square() / (2 * self.config.deviation**2))
        nearer = ((U >= 0) == (corner > 0)).to(U)
        return binary_cross_entropy(likelihood.clamp(_LEAST, 1 - _LEAST), nearer)
