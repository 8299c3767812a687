"""DSH-GANs: Deep Semantic Hashing with Generative Adversarial Networks (Qiu et al., SIGIR 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    MethodConfig,
    Outputs,
    Paper,
    Problem,
    Step,
    Training,
    weighted,
)
from schn_ray.methods.classifiers import LabelClassifier
from schn_ray.methods.deep.recipe import fine_tuned
from schn_ray.methods.generators import (
    NOISE,
    Generator,
    draw_dissimilar,
    generator_for,
    unremembered,
)
from schn_ray.methods.losses import counted_mean, judged_fake, judged_real
from schn_ray.methods.triplets import soft_hamming_of_rows
from schn_ray.models.encoder import Encoder


class DshGanConfig(MethodConfig):
    """Settings of DSH-GANs.

    Attributes:
        classification: weight of the classifier on the features.
        adversarial: weight of telling real images from made ones.
        triplet: weight of the triplets.
        margin: in bits; published 1.
        warm_up: iterations before the triplets count; about a third of training.
    """

    recipe: ClassVar[Mapping[str, Any]] = fine_tuned(1e-4)
    classification: Weight = 1.0
    adversarial: Annotated[Weight, Searched(log=(0.1, 3.0))] = 1.0
    triplet: Weight = 1.0
    margin: Annotated[Weight, Searched(log=(1.0, 8.0))] = 4.0
    warm_up: Annotated[int, Field(ge=0), Searched(integer=(0, 20))] = 2


class DshGan(DeepMethod[DshGanConfig]):
    """DSH-GANs: triplets of a real image and two made ones, of its labels and of others.

    A generator makes x+ of the labels of x, and x- of labels of a training row that shares none.
    With p = sigmoid(2 h), the encoder descends the classifier's loss of x, and of x+ and x- by
    half; that of telling x from x+ and x-; and mean max(0, m + |p - p+|^2 - |p - p-|^2). Then the
    generator descends the same with made images taken for real. Rows without a label are only told
    from made ones. The networks' sizes, weights and warm-up are this project's; so are vectors in
    place of images. On a backbone that stays as it is, only the triplets train the head: set
    warm_up to 0. Five forward passes a step. Published with AlexNet.
    """

    Config = DshGanConfig
    not_nested = "it trains on images that are made for codes of one length"
    iterations: Tensor  # done so far
    generator: Generator
    paper = Paper("Deep Semantic Hashing with Generative Adversarial Networks", "SIGIR 2017")

    def __init__(self, config: DshGanConfig, problem: Problem, encoder: Encoder) -> None:
        super().__init__(config, problem, encoder)
        classes, width, workers = problem.classes, problem.width, problem.workers
        self.classifier = LabelClassifier(width, problem)
        self.adversary = nn.Linear(width, 1)
        self.generator = generator_for(encoder.backbone, classes, width, workers)
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))

    def optimised(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the encoder with its judges, and those of the generator."""
        judged = self.encoder, self.classifier, self.adversary
        main = [parameter for network in judged for parameter in network.parameters()]
        return {"main": main, "generator": list(self.generator.parameters())}

    def step(self, batch: Batch, training: Training) -> Step:
        """Take a step of the encoder on real and made rows, and one of the generator."""
        x, others = batch.inputs, self._others(batch)
        noise = torch.randn(2, len(batch.Y), NOISE)[:, batch.own].to(batch.Y)
        made = [self.generator(noise[k], b.Y[batch.own], x) for k, b in enumerate((batch, others))]
        real, told = self._outputs(training.encode(x)), self.generator.as_made(x)
        with unremembered(self.encoder):
            blurred = real if told is x else self._outputs(training.encode(told))
            fakes = [self._outputs(training.encode(image.detach())) for image in made]
        terms = self.terms(real, blurred, fakes, batch, others)
        training.descend(batch.share * self._total(terms))
        with unremembered(self.encoder), self.problem.precision.for_networks():
            # its parameters do not move, so the gradients that workers share are the generator's
            judged = [self._outputs(self.encoder(image)) for image in made]
        of_generator = self._total(self.generator_terms(real, judged, batch, others))
        training.descend(batch.share * of_generator, "generator")
        reported = {n: t.detach() for n, t in (terms | {"generator": of_generator}).items()}
        return Step(reported, {"U": self.relaxed(real.h.detach())})

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> None:
        """Count the iterations."""
        self.iterations += 1

    def terms(
        self, real: Outputs, blurred: Outputs, made: list[Outputs], batch: Batch, others: Batch
    ) -> dict[str, Tensor]:
        """Return what the encoder descends.

        Args:
            real: of own rows.
            blurred: of own rows no sharper than made ones.
            made: of those made of the rows' labels, and of those made of others.
            batch: the global batch.
            others: the batch with labels that its rows do not have.
        """
        fake = torch.stack([judged_fake(self.adversary(m.F)) for m in made]).mean()
        of_made = self._classified(made, batch, others)
        return {
            "classification": self.classifier(real.F, batch) + of_made,
            "adversarial": judged_real(self.adversary(blurred.F)) + fake,
            "triplet": self._triplets(real.h, made, batch, others),
        }

    def generator_terms(
        self, real: Outputs, made: list[Outputs], batch: Batch, others: Batch
    ) -> dict[str, Tensor]:
        """Return what the generator descends; arguments as of ``terms``."""
        return {
            "classification": self._classified(made, batch, others),
            "adversarial": torch.stack([judged_real(self.adversary(m.F)) for m in made]).mean(),
            "triplet": self._triplets(real.h.detach(), made, batch, others),
        }

    def _classified(self, made: list[Outputs], batch: Batch, others: Batch) -> Tensor:
        return (self.classifier(made[0].F, batch) + self.classifier(made[1].F, others)) / 2

    def _triplets(self, h: Tensor, made: list[Outputs], batch: Batch, others: Batch) -> Tensor:
        near, far = (soft_hamming_of_rows(torch.tanh(h), torch.tanh(m.h)) for m in made)
        complete = (batch.labelled * others.labelled)[batch.own].to(h.dtype)
        return counted_mean((self.config.margin + near - far).clamp(min=0), complete, batch)

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        # times 0, as workers wait for a gradient of every weight
        counted = float(self.iterations >= self.config.warm_up)
        return weighted(terms | {"triplet": counted * terms["triplet"]}, self.config)

    def _others(self, batch: Batch) -> Batch:
        draws = torch.rand(len(batch.Y))
        return replace(batch, Y=draw_dissimilar(batch.Y, self.problem.label_sets, draws))

    def _outputs(self, encoded: tuple[Tensor, Tensor]) -> Outputs:
        F, h = encoded
        return Outputs(F.float(), h.float())
