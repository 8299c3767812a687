"""DPQ: Deep Progressive Quantization (Gao et al., IJCAI 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from schn_ray.core.settings import Count, Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper, Problem
from schn_ray.methods.classifiers import LabelClassifier
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.losses import cosines
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.blocks import one_hot_blocks
from schn_ray.models.heads.words import WordsHead, word_scores

_SWEEPS = 20  # of k-means, at most


class DpqConfig(MethodConfig):
    """Settings of DPQ.

    Attributes:
        classification: weight of a classifier on the features.
        margin: weight of the margins between the cosines with the classes' vectors.
        soft: weight of the distance of X from its soft words.
        hard: weight of the distance of X from its nearest words, mu.
        joint: weight of the distance between soft and nearest words, nu.
        width: D, numbers that are quantised; published 300, the length of a word vector.
        block: k, words of a codebook; it must divide the bits. Published 256.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    classification: Weight = 0.1
    margin: Weight = 1.0
    soft: Weight = 1.0
    hard: Annotated[Weight, Searched(log=(0.1, 10.0))] = 1.0
    joint: Annotated[Weight, Searched(log=(0.01, 1.0))] = 0.1
    width: Count = 300
    block: Annotated[int, Field(ge=2)] = 4


class Dpq(DeepMethod[DpqConfig]):
    """DPQ: X = tanh(F W + b) near its class's vector, and as a sum of words of M codebooks.

    With v_c the vector of class c and d_cj = 1 - cos(v_c, v_j): L = 0.1 class + sum over labels c
    of rows and other classes j of max(0, d_cj - cos(v_c, X) + cos(v_j, X)) / (C x labels). The
    codebooks E_m see X as a constant: sum_m mean (X - soft_m)^2 + mu sum_m mean (X - hard_m)^2 + nu
    mean (soft_M - hard_M)^2, sums of the first m words, the nearest ones or softmax(scores) E. A
    code has K = M k bits with one +1 a codebook, so it says M log2(k) bits. Ours: v are random and
    not of a language, words are the nearest by distance and not by cosine, and k-means starts the
    codebooks after the first iteration, where the paper trains them in the second half only. Its
    figures come from look-up tables of the query: ``--rescore query`` ranks by them. Hamming
    distance counts the words that differ, twice, and words late in the sum are of little weight: on
    the pixels of digits, 60 epochs and 32 bits, which say 16, mAP is 0.83 by it, 0.91 by the tables
    and 0.91 by X itself, a linear map of the pixels.

    Raises:
        SchnRayError: the bits do not divide into codebooks.
    """

    Config = DpqConfig
    not_nested = "its codes are numbers of words"
    activation = "none"
    class_vectors: Tensor  # v [C, D]
    started: Tensor
    paper = Paper(
        "Beyond Product Quantization: Deep Progressive Quantization for Image Retrieval",
        "IJCAI 2019",
    )

    def __init__(self, config: DpqConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        self.classifier = LabelClassifier(problem.width, problem)
        self.codebooks = nn.Parameter(self._head.words.clone())  # E [M, k, D]
        drawn = np.random.default_rng([problem.seed, 0]).normal(
            size=(problem.classes, config.width)
        )
        vectors = normalize(torch.from_numpy(drawn).float(), dim=1)
        self.register_buffer("class_vectors", vectors)
        self.register_buffer("started", torch.tensor(False))

    @classmethod
    def choose_head(cls, config: DpqConfig, head: HeadConfig) -> HeadSpec:
        """Return codebooks, whatever the settings of the layers."""
        return HeadSpec(kind="words", hidden=config.width, block=config.block)

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of X, ``out.h`` [b, D], and those of the codebooks."""
        X = out.h.detach()
        scores, nearest = word_scores(X, self.codebooks.to(X))
        hard = nearest.cumsum(dim=1)  # [b, M, D]
        soft = torch.einsum("bmk,mkd->bmd", scores.softmax(dim=2), self.codebooks).cumsum(dim=1)
        return {
            "classification": self.classifier(out.F.to(X), batch),
            "margin": self._margins(out.h, batch),
            "soft": (X[:, None] - soft).square().mean(dim=(0, 2)).sum(),
            "hard": (X[:, None] - hard).square().mean(dim=(0, 2)).sum(),
            "joint": (soft[:, -1] - hard[:, -1]).square().mean(),
        }

    def relaxed(self, h: Tensor) -> Tensor:
        """Return the code of X [b, D]: +1 at the word of each codebook."""
        return one_hot_blocks(word_scores(h, self.codebooks.to(h))[0])

    def outputs(self, out: Outputs) -> dict[str, Tensor]:
        """Return the code, and X."""
        return super().outputs(out) | {"X": out.h}

    @torch.no_grad()
    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Start the codebooks after the first iteration; give the head what they are now."""
        if not self.started:
            gather = self.problem.workers.gather_any
            order = gather(rows).argsort()  # the same sums on any number of workers
            X = gather(outputs["X"])[order].double()
            M, k, _ = self.codebooks.shape
            self.codebooks.copy_(residual_words(X, M, k, self.problem.seed))
            self.started.fill_(True)
        self._head.words.copy_(self.codebooks)

    @property
    def _head(self) -> WordsHead:
        head = self.encoder.head
        assert isinstance(head, WordsHead)
        return head

    def _margins(self, X: Tensor, batch: Batch) -> Tensor:
        v, Y = self.class_vectors.to(X), batch.Y
        row, label = torch.nonzero(Y[batch.own], as_tuple=True)
        near, apart = cosines(X, v)[row], 1 - cosines(v, v)[label]
        excess = (apart - near.gather(1, label[:, None]) + near).clamp(min=0)
        total = (excess * (1 - Y[batch.own][row])).sum() * (len(Y) / max(len(X), 1))
        return total / (len(v) * Y.sum().clamp(min=1))


def residual_words(X: Tensor, codebooks: int, words: int, seed: int) -> Tensor:
    """Return codebooks by k-means: each of what the words of those before leave of the rows.

    Args:
        X: [n, D] rows.
        codebooks: M.
        words: k; with fewer rows, rows are words more than once.
        seed: decides the rows that k-means starts from.

    Returns:
        E [M, k, D].
    """
    rng, E, left = np.random.default_rng([seed, 1]), [], X
    for _ in range(codebooks):
        centres = left[torch.from_numpy(rng.choice(len(X), words, replace=len(X) < words))]
        for _ in range(_SWEEPS):
            hits = nn.functional.one_hot(torch.cdist(left, centres).argmin(dim=1), words).to(X)
            count = hits.sum(dim=0)[:, None]
            moved = torch.where(count > 0, hits.T @ left / count.clamp(min=1), centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        E.append(centres)
        left = left - centres[torch.cdist(left, centres).argmin(dim=1)]
    return torch.stack(E)
