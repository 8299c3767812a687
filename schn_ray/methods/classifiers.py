"""Classifiers beside an encoder, and their losses; a row may have any number of labels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Batch, Problem
from schn_ray.methods.losses import labelled_mean

Reduction = Literal["sum", "mean"]


class LabelClassifier(nn.Module):
    """A linear layer from codes or features to classes, and its loss.

    Where no training row has two labels, the loss is the cross-entropy, else the binary one. The
    binary one is summed over classes: their mean is C times weaker than the terms beside it.

    Args:
        width: of the inputs.
        problem: has the classes and the labels of all training rows.
        reduction: over classes, of the binary cross-entropy.
        bias: whether the layer has one.
    """

    def __init__(
        self, width: int, problem: Problem, reduction: Reduction = "sum", bias: bool = True
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, problem.classes, bias)
        self._single, self._reduction = one_label_a_row(problem.label_sets), reduction

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Inputs of own rows [b, width] -> the loss, a mean over the rows that have a label."""
        return labelled_mean(self.row_losses(x, batch.Y[batch.own]), batch)

    def row_losses(self, x: Tensor, Y: Tensor) -> Tensor:
        """Return the loss of each row [b], whether it has a label or not.

        Args:
            x: [b, width] inputs.
            Y: [b, C] labels.
        """
        logits = self.linear(x).to(Y)
        if self._single:
            return soft_cross_entropy(logits, Y)
        entries = binary_cross_entropy_with_logits(logits, Y, reduction="none")
        return entries.sum(dim=1) if self._reduction == "sum" else entries.mean(dim=1)


def one_label_a_row(label_sets: LabelSets) -> bool:
    """Tell whether no training row has two labels.

    Args:
        label_sets: of all training rows.
    """
    return bool((np.diff(label_sets.sets.indptr) <= 1).all())


def soft_cross_entropy(logits: Tensor, Y: Tensor) -> Tensor:
    """Return -sum_c y_c / |y| log softmax(logits)_c for each row [b]; 0 for one without a label.

    Args:
        logits: [b, C].
        Y: [b, C] labels.
    """
    return -(label_shares(Y) * log_softmax(logits, dim=1)).sum(dim=1)


def label_shares(Y: Tensor) -> Tensor:
    """Return each row over its number of labels; a row without any stays 0.

    Args:
        Y: [b, C] labels.
    """
    return Y / Y.sum(dim=1, keepdim=True).clamp(min=1)
