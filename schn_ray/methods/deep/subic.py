"""SuBiC: a supervised structured binary code (Jain et al., ICCV 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.classifiers import LabelClassifier, one_label_a_row
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.blocks import one_hot_blocks


class SubicConfig(MethodConfig):
    """Settings of SuBiC.

    Attributes:
        classification: weight of the cross-entropy.
        entropy: weight of the entropy within a row's blocks, gamma; published 1.
        batch_entropy: weight of minus the entropy of a block over the batch, mu; published 1.
        block: k, outputs of a block; it must divide the bits. Published 256, which needs many
            classes: with ten, most outputs stay unused.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    classification: Weight = 1.0
    entropy: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    batch_entropy: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    block: Annotated[int, Field(ge=2)] = 4


class Subic(DeepMethod[SubicConfig]):
    """SuBiC: codes of one-hot blocks, from a softmax in each block that entropy sharpens.

    q = softmax of relu(z) in M = K / k blocks; L = CE(q W + b, y) / ln C + gamma mean_i sum_m
    H(q_im) / (M ln k) - mu sum_m H(mean_i q_im) / (M ln k). A code has K bits with one +1 a block,
    so it says M log2(k) bits, and Hamming distance counts the blocks that differ, twice. The
    published weights of 1 leave cells unused with few classes; 0.1 is ours, and so is the binary
    cross-entropy for several labels. Published with Adam 1e-4, batches of 200, only the new layers
    trained, 8 blocks of 256. Its figures come from look-up tables of the query: ``--rescore query``
    ranks by them. On the pixels of digits it needs epochs: mAP by Hamming distance 0.64
    after 15, and after 60 0.92 with 32 bits, which say 16, and 0.95 with 128 in blocks of 16, which
    say 32; with the published weights 0.90.

    Raises:
        SchnRayError: the bits do not divide into blocks.
    """

    Config = SubicConfig
    not_nested = "its codes are one-hot blocks"
    activation = "none"
    paper = Paper("SuBiC: A Supervised, Structured Binary Code for Image Search", "ICCV 2017")

    def __init__(self, config: SubicConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.bits, problem)
        single = one_label_a_row(problem.label_sets)
        self._class_scale = 1 / log(max(problem.classes, 2)) if single else 1.0

    @classmethod
    def choose_head(cls, config: SubicConfig, head: HeadConfig) -> HeadSpec:
        """Return one-hot blocks, whatever the settings of the layers."""
        return HeadSpec(kind="blocks", block=config.block)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the classifier's loss and the entropies of rows and of the batch."""
        q = out.h.relu().unflatten(1, (-1, self.config.block)).softmax(dim=2)  # [b, M, k]
        mean = batch.gather(q).mean(dim=0)
        return {
            "classification": self.classifier(q.flatten(1), batch) * self._class_scale,
            "entropy": self._entropy(q).mean(),
            "batch_entropy": -self._entropy(mean[None]).mean(),
        }

    def relaxed(self, h: Tensor) -> Tensor:
        """Return the code, +1 at the first largest output of each block."""
        return one_hot_blocks(h.relu().unflatten(1, (-1, self.config.block)))

    def _entropy(self, q: Tensor) -> Tensor:
        """Return the mean over blocks of H(q) / ln k, in [0, 1]: [b]."""
        # not entr: its gradient at a q that has vanished is infinite
        entropies = -(q * (q + 1e-30).log()).sum(dim=2) / log(self.config.block)
        return entropies.mean(dim=1)
