"""A classifier through a bottleneck of K bounded units, whose signs are the code."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Problem
from schn_ray.methods.classifiers import LabelClassifier
from schn_ray.methods.losses import labelled_mean
from schn_ray.models.encoder import Encoder


class BottleneckConfig(MethodConfig):
    """Settings of the bottleneck.

    Attributes:
        classification: weight of the cross-entropy.
        quantization: weight of the pull to -1 or +1.
    """

    classification: Weight = 1.0
    quantization: Annotated[Weight, Searched(choices=(0.0, 1e-3, 1e-2, 0.1, 1.0))] = 0.0


class Bottleneck(DeepMethod[BottleneckConfig]):
    """A plain classifier on tanh h, whose signs are the code: what other methods must beat.

    L = CE(tanh(h) W + b, y), and with a weight mean (|u| - 1)^2 of rows with a label. On frozen
    features, with a hidden layer (``head.kind=mlp``), it was ahead of learned and fixed centres.
    Where a training row has two labels, the binary cross-entropy is summed over classes. It is
    DLBHC with tanh in place of a sigmoid, which the following layer can undo.
    """

    Config = BottleneckConfig

    def __init__(self, config: BottleneckConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.bits, problem)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the classifier's loss and the pull to the corners."""
        U = torch.tanh(out.h)
        corners = (U.abs() - 1).square().mean(dim=1)
        return {
            "classification": self.classifier(U, batch),
            "quantization": labelled_mean(corners, batch),
        }
