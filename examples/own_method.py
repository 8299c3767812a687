"""A method of your own, in a file of your own.

schn-ray train STORE --method examples/own_method.py:Margin --preset digits --out RUN
schn-ray methods examples/own_method.py:Margin
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Problem
from schn_ray.methods.losses import labelled_mean, square_quantisation
from schn_ray.models.encoder import Encoder


class MarginConfig(MethodConfig):
    """Settings of the example.

    Attributes:
        classes: weight of the classifier's loss.
        quantization: weight of the pull to -1 or +1.
        margin: what the right class must win by, as a cosine.
        scale: of the cosines.
    """

    classes: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 1.0))] = 0.1
    margin: Annotated[float, Searched(linear=(0.0, 0.5))] = 0.2
    scale: float = 8.0


class Margin(DeepMethod[MarginConfig]):
    """A cosine classifier with a margin, on codes that are pulled to -1 or +1.

    Each class has a direction in the space of codes. A row's relaxed code u must be nearer to that
    of its class than to any other, by a margin; rows without a label count for nothing.
    """

    Config = MarginConfig
    labels = "single"

    def __init__(self, config: MarginConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.directions = nn.Parameter(torch.randn(problem.classes, problem.bits))

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return both terms, unweighted; each is weighted by the setting of its name."""
        U, Y = torch.tanh(out.h), batch.Y[batch.own]
        unit = nn.functional.normalize
        cosines = unit(U, dim=1) @ unit(self.directions, dim=1).T
        logits = self.config.scale * (cosines - self.config.margin * Y)
        of_rows = cross_entropy(logits, Y.argmax(dim=1), reduction="none")
        return {"classes": labelled_mean(of_rows, batch), "quantization": square_quantisation(U)}
