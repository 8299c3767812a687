"""CIBHash: hashing by contrast and an information bottleneck (Qiu et al., IJCAI 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper
from schn_ray.methods.deep.greedyhash import straight_through_sign
from schn_ray.methods.losses import cosines


class CibhashConfig(MethodConfig):
    """Settings of CIBHash.

    Attributes:
        contrast: weight of telling a row's other view from all other rows.
        bottleneck: weight of the distance of the two views' probabilities, beta.
        temperature: tau, which divides the cosines.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "vgg16", "weights": "DEFAULT", "frozen": True},
        "head": {"kind": "mlp", "hidden": 1024},
        "optimiser": {"learning_rate": 1e-3},
    }
    contrast: Weight = 1.0
    bottleneck: Annotated[Weight, Searched(log=(1e-4, 1.0))] = 1e-3
    temperature: Annotated[float, Field(gt=0), Searched(log=(0.1, 1.0))] = 0.3


class Cibhash(DeepMethod[CibhashConfig]):
    """CIBHash: two views of a row have near codes, those of other rows far ones; no labels.

    p = sigmoid(h), z = sign(p - 1/2), whose gradient passes to p. L = mean over the views of all
    rows of the cross-entropy of cos(z_a, z_b) / tau over all other views b, the right one being
    that of the same row, + beta / 2 [KL(p || p') + KL(p' || p)], the second argument constant, of
    both views of each row. All is the paper's but for views of vectors: on stored features a view
    lacks a share of the numbers. Published with images distorted before a frozen VGG-16, whose
    dropout stays on: ``backbone.frozen=false`` distorts images, too, and trains the backbone.
    Published with Adam 1e-3, 60 epochs in batches of 64; weaker than others in comparisons: on the
    pixels of digits, 60 epochs and 32 bits, mAP is 0.70.
    """

    Config = CibhashConfig
    labels = "none"
    views = ("distorted", "distorted")
    paper = Paper("Unsupervised Hashing with Contrastive Information Bottleneck", "IJCAI 2021")

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the contrast with the rows of all workers, and the distance of own views."""
        h = torch.stack([out.h, out.other.h])  # [2, b, K]
        Z = straight_through_sign(torch.sigmoid(h) - 0.5)
        Z_all = batch.gather(Z.transpose(0, 1)).transpose(0, 1).flatten(0, 1)  # [2 N, K]
        N = len(batch.Y)
        own = torch.arange(N, device=h.device)[batch.own]
        views = torch.cat([own, own + N])
        logits = cosines(Z.flatten(0, 1), Z_all) / self.config.temperature
        itself = torch.nn.functional.one_hot(views, 2 * N).bool()
        others = logits.masked_fill(itself, -torch.inf)
        apart = _divergence(h[0], h[1].detach()) + _divergence(h[1], h[0].detach())
        return {
            "contrast": cross_entropy(others, (views + N) % (2 * N)),
            "bottleneck": apart.mean() / 2,
        }


def _divergence(h: Tensor, g: Tensor) -> Tensor:
    """Return KL(sigmoid(h) || sigmoid(g)) of independent bits [b]."""
    of_one = torch.sigmoid(h) * (logsigmoid(h) - logsigmoid(g))
    of_zero = torch.sigmoid(-h) * (logsigmoid(-h) - logsigmoid(-g))
    return (of_one + of_zero).sum(dim=1)
