"""CRH: Center-Reassigned Hashing (Yin et al., AAAI 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from schn_ray.core.bits import sign
from schn_ray.core.settings import Searched, Share, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.centres import class_centres
from schn_ray.methods.classifiers import label_shares, soft_cross_entropy
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines, labelled_mean
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder


class CrhConfig(MethodConfig):
    """Settings of CRH.

    Attributes:
        classification: weight of the softmax over centres.
        quantization: weight of the pull to the row's centre.
        margin: by which a row's cosine with its own centre must lead.
        words: of the codebook, for each class.
        reassign: give classes other words after each iteration.
        batch_norm: normalise each bit over the batch.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4, backbone_rate=0.1)
    classification: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-3, 1.0))] = 0.1
    margin: Annotated[Share, Searched(linear=(0.0, 0.5))] = 0.2
    words: Annotated[int, Field(ge=1)] = 2
    reassign: bool = True
    batch_norm: bool = True


class Crh(DeepMethod[CrhConfig]):
    """CRH, a reconstruction: OrthoHash's loss, with centres that follow the codes of their classes.

    L = OrthoHash's softmax with a margin + lambda mean (tanh h - t)^2, t the mean of the centres of
    the row's labels. After an iteration each class takes the word of a codebook of 2 C that is
    nearest to its rows' codes, no two classes the same, at the least total distance. The idea is
    the paper's, read in summaries; equations and numbers are this project's. Words are
    ``class_centres``; the paper draws them, checks their distance, and cuts codes into parts.
    """

    Config = CrhConfig
    words: Tensor  # [2 C, K]
    word_of_class: Tensor  # [C]
    paper = Paper("Center-Reassigned Hashing", "AAAI 2026; equations reconstructed from summaries")

    def __init__(self, config: CrhConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        count = min(config.words * problem.classes, 2**problem.bits)
        self.register_buffer("words", problem.drawn(partial(class_centres, count)))
        self.register_buffer("word_of_class", torch.arange(problem.classes))

    @classmethod
    def choose_head(cls, config: CrhConfig, head: HeadConfig) -> HeadSpec:
        """Return the chosen layers, with batch normalisation."""
        return head.spec().model_copy(update={"batch_norm": config.batch_norm})

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy of own rows, and the pull to their centres."""
        Y, T = batch.Y[batch.own], self.words[self.word_of_class].to(out.h)
        logits = self.problem.bits**0.5 * (cosines(out.h, T) - self.config.margin * Y)
        off = (torch.tanh(out.h) - label_shares(Y) @ T).square().mean(dim=1)
        return {
            "classification": labelled_mean(soft_cross_entropy(logits, Y), batch),
            "quantization": labelled_mean(off, batch),
        }

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Give each class the word that suits its rows' codes."""
        if not self.config.reassign:
            return
        label_sets = self.problem.label_sets
        Y = label_sets.sets[label_sets.set_of_row[rows.numpy()]].astype("float64")
        codes = sign(outputs["U"]).double().numpy()
        sums = self.problem.workers.sum(torch.from_numpy(Y.T @ codes))
        counts = self.problem.workers.sum(torch.from_numpy(Y.sum(axis=0)))
        agreement = sums @ self.words.double().cpu().T / counts.clamp(min=1)[:, None]
        _, words = linear_sum_assignment(-agreement.numpy())
        self.word_of_class.copy_(torch.from_numpy(words))
