"""CroVCA: Cross-View Code Alignment (Moummad et al., CVPRW 2026), without or with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, Labels, MethodConfig, Outputs, Paper
from schn_ray.methods.classifiers import label_shares
from schn_ray.models.config import HeadConfig, HeadSpec


class CrovcaConfig(MethodConfig):
    """Settings of CroVCA.

    Attributes:
        alignment: weight of the cross-entropy of each view with the other's code.
        coding_rate: weight of the volume that the outputs fill, lambda.
        precision: eps of that volume: smaller directions do not count.
        batch_norm: normalise each bit over the batch.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "resnet50", "weights": "DEFAULT", "frozen": True},
        "head": {"kind": "mlp"},
        "optimiser": {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2},
    }
    alignment: Weight = 1.0
    coding_rate: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    precision: Annotated[float, Field(gt=0)] = 0.05
    batch_norm: bool = True


class Crovca(DeepMethod[CrovcaConfig]):
    """CroVCA: each view of a row learns the code of the other; codes fill the space; no labels.

    With h of one view and t = [h > 0] of the other: L = mean BCE(sigmoid(h), t), over both views, -
    lambda (K + N) / (2 K N) log det(I + K / (N eps) Z^T Z), Z the outputs of the batch at unit
    length, the mean of both views. All is the paper's but the width of the head's hidden layer (512
    here, there that of the features), and views of vectors: on stored features a view lacks a share
    of the numbers. Published with AdamW from 1e-3 to 1e-6, 5 epochs in batches of 256, on frozen
    foundation models; each view shows 40 % of an image or more. On the pixels of digits, 60 epochs
    and 32 bits, mAP is 0.77.
    """

    Config = CrovcaConfig
    labels: ClassVar[Labels] = "none"
    views = ("distorted", "distorted")
    paper = Paper(
        "Image Hashing via Cross-View Code Alignment in the Age of Foundation Models", "CVPRW 2026"
    )

    @classmethod
    def choose_head(cls, config: CrovcaConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with batch normalisation."""
        return head.spec().model_copy(update={"batch_norm": config.batch_norm})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of own rows, and minus the volume of all workers' outputs."""
        views = out.h, out.other.h
        gathered = torch.stack([batch.gather(h) for h in views])  # [2, N, K]
        targets = self.targets(views, gathered.detach().mean(dim=0), batch)
        aligned = [
            binary_cross_entropy_with_logits(h, target.to(h))
            for h, target in zip(views, targets, strict=True)
        ]
        volume = [coding_rate(h, self.config.precision) for h in gathered]
        return {
            "alignment": torch.stack(aligned).mean(),
            "coding_rate": -torch.stack(volume).mean(),
        }

    def targets(
        self, views: tuple[Tensor, Tensor], means: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the bits that the two views of own rows learn, each bool [b, K].

        Args:
            views: outputs of both views of own rows, each [b, K].
            means: [N, K] mean outputs of the two views of all rows.
            batch: the global batch.
        """
        return views[1] > 0, views[0] > 0


class CrovcaLabelled(Crovca):
    """CroVCA with labels: both views of a row learn the signs of their classes' means.

    As ``crovca``, but the target of a row is [m > 0], m the mean over its labels of the mean output
    of the class, over both views of the batch's rows. A row without a label learns its other view's
    code; this is ours.
    """

    labels = "multi"

    def targets(
        self, views: tuple[Tensor, Tensor], means: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the bits of the classes' means; where a row has no label, the other view's."""
        of_class = label_shares(batch.Y.T) @ means  # [C, K]
        Y = batch.Y[batch.own]
        bits, labelled = label_shares(Y) @ of_class > 0, Y.any(dim=1, keepdim=True)
        first, second = super().targets(views, means, batch)
        return torch.where(labelled, bits, first), torch.where(labelled, bits, second)


def coding_rate(h: Tensor, precision: float) -> Tensor:
    """Return (K + N) / (K N) log det(I + K / (N eps) Z^T Z) / 2, Z the rows at unit length.

    Args:
        h: [N, K] outputs of all rows.
        precision: eps.
    """
    (N, K), Z = h.shape, normalize(h, dim=1)
    matrix = torch.eye(K).to(h) + K / (N * precision) * Z.T @ Z
    # half of the log of a determinant is the sum of the logs of Cholesky's diagonal
    return (K + N) / (K * N) * torch.linalg.cholesky(matrix).diagonal().log().sum()
