"""What every hashing method is made of: its settings, what it is told, and what it returns.

A method is one file with a config and a class, and one line in ``methods/registry.py``. The loop,
checkpoints, Ray, evaluation and search know no method by name. docs/methods.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import TypeVar

from schn_ray.core.settings import Section
from schn_ray.core.workers import Gather, Workers
from schn_ray.data.labels import LabelSets
from schn_ray.methods.centres import A, nested_codes
from schn_ray.methods.code_table import CodeTable
from schn_ray.models.config import HeadConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.precision import Precision

if TYPE_CHECKING:
    from schn_ray.methods.shallow.feature_rows import FeatureRows

Labels = Literal["none", "single", "multi"]
Activation = Literal["tanh", "none"]
View = Literal["plain", "distorted"]


@dataclass(frozen=True)
class PublishedFigure:
    """What others measured of a method, under their protocol; not to be mixed with figures of ours.

    Attributes:
        data: data set and code lengths.
        scores: mAP of each length; ``@1000``: over so many results only.
        protocol: network, and gallery where it is not the usual one.
        source: who says so.
    """

    data: str
    scores: str
    protocol: str
    source: str


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Attributes:
        title: of the paper.
        venue: where and when.
        figures: that could be verified.
    """

    title: str
    venue: str
    figures: tuple[PublishedFigure, ...] = ()


class MethodConfig(Section):
    """Settings of one method: defaults as published.

    A field with the name of a loss term is its weight. A field that a search may vary says so in
    its annotation, see ``core.settings.Searched``.

    Attributes:
        name: of the method, as ``train --method`` takes it.
        recipe: the published optimiser, schedule and backbone, as nested settings of ``train``. A
            preset, a file and ``--set`` override it.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}
    name: str = ""


C = TypeVar("C", bound=MethodConfig, default=MethodConfig)


@dataclass(frozen=True)
class Problem:
    """All that a method may know when it is built.

    Attributes:
        bits: K.
        width: d, of the backbone's features.
        label_sets: of all training rows.
        workers: who shares each global batch.
        precision: number format of the networks.
        seed: of everything that the method draws.
        lengths: all those of nested codes, ascending; K is one of them. (): codes have one length.
    """

    bits: int
    width: int
    label_sets: LabelSets
    workers: Workers
    precision: Precision
    seed: int
    lengths: tuple[int, ...] = ()

    @property
    def classes(self) -> int:
        """C."""
        return int(self.label_sets.sets.shape[1])

    @property
    def rows(self) -> int:
        """n, the training rows of all workers."""
        return len(self.label_sets.set_of_row)

    def drawn(self, draw: Callable[[int, int], A]) -> A:
        """Return codes [m, K] that a method draws, the first bits of those of the longest length.

        Args:
            draw: bits, seed -> codes [m, bits]; see ``centres.nested_codes``.
        """
        return nested_codes(draw, self.lengths or (self.bits,), self.seed)[:, : self.bits]


class PairKinds(NamedTuple):
    """Similar and dissimilar pairs of own rows with columns that all workers share.

    Attributes:
        similar: [b, m] 1 where the pair is similar, else 0.
        dissimilar: [b, m] 1 where it is dissimilar, else 0.
        counts: [2] how many of each all workers have, 1 if none.
    """

    similar: Tensor
    dissimilar: Tensor
    counts: Tensor

    @classmethod
    def of(cls, A: Tensor, workers: Workers, counted: Tensor | None = None) -> PairKinds:
        """Count the pairs of all workers.

        Args:
            A: [b, m] 1 where the pair is similar, else 0.
            workers: who shares the global batch; all of them call this.
            counted: [b, m] 1 where the pair counts, else 0; None: all do.
        """
        P, Q = (A, 1 - A) if counted is None else (A * counted, (1 - A) * counted)
        return cls(P, Q, workers.sum(torch.stack([P.sum(), Q.sum()])).clamp(min=1))


@dataclass(frozen=True)
class Batch:
    """A global batch as one worker gets it: its own inputs, labels and codes of all rows.

    Attributes:
        inputs: [b, 3, S, S] normalised images, or [b, d] vectors, of this worker's rows only.
        rows: [N] numbers of the rows among all training rows.
        Y: [N, C] multi-hot labels of all rows; without any label where a row has none.
        B: [N, K] codes of all rows; 0 for a row that has none.
        workers: who shares the batch.
        second: another view of this worker's rows, like ``inputs``; None for a method that does not
            ask for one, see ``DeepMethod.views``.
    """

    inputs: Tensor
    rows: Tensor
    Y: Tensor
    B: Tensor
    workers: Workers = field(default_factory=Workers)
    second: Tensor | None = None

    def with_codes(self, B: Tensor) -> Batch:
        """Return the batch with other codes; what was computed of it so far is not again.

        Args:
            B: [N, K] codes of all rows.
        """
        other = object.__new__(Batch)
        other.__dict__.update(self.__dict__, B=B)
        return other

    @cached_property
    def own(self) -> slice:
        """This worker's rows of the batch."""
        return self.workers.own(len(self.Y))

    @cached_property
    def share(self) -> float:
        """The factor of a mean over own rows, see ``Workers.share``."""
        return self.workers.share(len(self.Y))

    @property
    def gather(self) -> Gather:
        """Own rows [b, ...] -> the rows of all workers [N, ...]; gradients flow back."""
        return self.workers.gather(len(self.Y))

    @cached_property
    def labelled(self) -> Tensor:
        """[N]: 1 where a row has a label, else 0."""
        return self.Y.any(dim=1).to(self.Y.dtype)

    @cached_property
    def labelled_count(self) -> Tensor:
        """The number of rows with a label, 1 if there are none: what a mean is divided by."""
        return self.labelled.sum().clamp(min=1)

    @cached_property
    def similar(self) -> Tensor:
        """A [b, N]: 1 where an own row shares a label with a row of the batch, else 0."""
        return (self.Y[self.own] @ self.Y.T > 0).to(self.Y.dtype)

    @property
    def pairs(self) -> PairKinds:
        """The similar and the dissimilar pairs of the batch, counted once."""
        # not a cached_property, which holds a lock while workers wait for each other
        if "_pairs" not in self.__dict__:
            self.__dict__["_pairs"] = PairKinds.of(self.similar, self.workers)
        pairs: PairKinds = self.__dict__["_pairs"]
        return pairs


class Outputs(NamedTuple):
    """What the encoder gives for this worker's rows.

    Attributes:
        F: [b, d] features of the backbone.
        h: [b, K] output of the head, before any activation; a row's code is sign(h).
        second: the same for ``Batch.second``; None where there is none.
    """

    F: Tensor
    h: Tensor
    second: Outputs | None = None

    @property
    def other(self) -> Outputs:
        """What the encoder gives for the second view, of a method that asks for one."""
        assert self.second is not None
        return self.second

    def first(self, bits: int) -> Outputs:
        """Return the same with the first outputs of the head.

        Args:
            bits: how many.
        """
        second = None if self.second is None else self.second.first(bits)
        return Outputs(self.F, self.h[:, :bits], second)


class Step(NamedTuple):
    """Results of one step, detached and on the device.

    Attributes:
        terms: loss terms by name, unweighted; each a mean over this worker's rows.
        outputs: named values [b, ...] of this worker's rows, as before the step changed the
            weights: ``U``, the relaxed codes, and what ``update`` wants back.
    """

    terms: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Training(Protocol):
    """What a step may ask of the framework; see ``methods.trainer.Trainer``."""

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder forward: inputs [b, ...] -> F [b, d], h [b, K].

        Args:
            inputs: of this worker's rows.
        """

    def descend(self, loss: Tensor, name: str = "main") -> None:
        """Take one step of an optimiser down a loss.

        Args:
            loss: scalar; its mean over the workers is the loss of the global batch.
            name: of the optimiser.
        """


class Method(nn.Module, Generic[C]):
    """A hashing method. All its state is in parameters and buffers, so checkpoints have it.

    Args:
        config: the method's settings.
        problem: what it may know.
        encoder: backbone and head: all that is released.

    Attributes:
        Config: class of its settings.
        paper: where it was published; None for a method of this project's own.
        labels: ``none``: it uses no labels; ``single``: it needs one label a row at most;
            ``multi``: a row may have any number.
        activation: from the head's output to the relaxed code that the model returns.
        not_nested: why the first bits of its codes are no codes, see ``methods.nested``.
        head_spec: what the encoder's head is built from.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    paper: ClassVar[Paper | None] = None
    labels: ClassVar[Labels] = "multi"
    activation: ClassVar[Activation] = "tanh"
    not_nested: ClassVar[str] = "it is fitted to features for one length"

    def __init__(self, config: C, problem: Problem, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.encoder = encoder
        self.head_spec = HeadSpec()

    @classmethod
    def choose_head(cls, config: C, head: HeadConfig) -> HeadSpec:
        """Return what the head is built from; by default the layers that the settings name.

        Args:
            config: the method's settings.
            head: settings of the layers.
        """
        return head.spec()

    @classmethod
    def solves_codes(cls) -> bool:
        """Tell whether training rows get codes from their labels, apart from the model's."""
        return cls.start is not Method.start

    def start(self, codes: CodeTable) -> None:
        """Set the codes that training rows start from; by default they have none.

        Args:
            codes: of all training rows; changed in place.
        """


class DeepMethod(Method[C]):
    """A method that descends loss terms on batches. Most write ``__init__`` and ``losses`` only.

    Attributes:
        views: of each row of a batch, one or two: ``plain`` ones, or ``distorted`` ones, see
            ``training.config.AugmentConfig``. The first is ``Batch.inputs``, the second
            ``Batch.second``. A second one doubles the cost of a step.
        one_network: whether its networks serve all lengths of nested codes, see
            ``step_of_lengths``; else each length has its own.
    """

    not_nested = ""
    views: ClassVar[tuple[View, ...]] = ("plain",)
    one_network: ClassVar[bool] = False

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms by name, unweighted; each is weighted by the config's field.

        Each term is a mean over own rows, or a value that all workers compute from gathered rows:
        the mean over workers of ``batch.share`` times a term is its value on the global batch.

        Args:
            out: of this worker's rows.
            batch: the global batch.
        """
        raise NotImplementedError

    def step(self, batch: Batch, training: Training) -> Step:
        """Take one step on a global batch; a method with several optimisers overrides this.

        Args:
            batch: the global batch.
            training: runs the encoder and descends.
        """
        terms, outputs = self.losses_and_outputs(self.encoded(batch, training), batch)
        training.descend(batch.share * weighted(terms, self.config))
        return Step({name: term.detach() for name, term in terms.items()}, outputs)

    def losses_and_outputs(
        self, out: Outputs, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return ``losses`` and ``outputs``; who computes them of the same values overrides this.

        Args:
            out: of this worker's rows.
            batch: the global batch.
        """
        return self.losses(out, batch), self.outputs(Outputs(out.F.detach(), out.h.detach()))

    def step_of_lengths(self, batch: Batch, codes: Tensor, training: Training) -> Step:
        """Take a step down the mean of the losses of all lengths; with ``one_network`` only.

        Args:
            batch: the global batch.
            codes: [N, L, K] of its rows, of each of ``Problem.lengths``, the last ``batch.B``; of
                a length k, only the first k are codes.
            training: runs the encoder and descends.
        """
        raise NotImplementedError

    def encoded(self, batch: Batch, training: Training) -> Outputs:
        """Run the encoder once, over both views of own rows where there are two.

        Args:
            batch: the global batch.
            training: runs the encoder.
        """
        if batch.second is None:
            F, h = training.encode(batch.inputs)
            return Outputs(F, h.to(batch.Y.dtype))
        F, h = training.encode(torch.cat([batch.inputs, batch.second]))
        first, second = (
            Outputs(*of_view)
            for of_view in zip(F.tensor_split(2), h.to(batch.Y.dtype).tensor_split(2), strict=True)
        )
        return first._replace(second=second)

    def outputs(self, out: Outputs) -> dict[str, Tensor]:
        """Return what a step keeps of own rows for ``update``, ``U`` among it; each [b, ...].

        Args:
            out: of this worker's rows, without gradients.
        """
        return {"U": self.relaxed(out.h)}

    def relaxed(self, h: Tensor) -> Tensor:
        """Return relaxed codes U [b, K], whose signs are the codes.

        Args:
            h: [b, K] output of the head while training.
        """
        return torch.tanh(h)

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return new codes of this worker's rows after an outer iteration; None: no change.

        Args:
            rows: [n_w] numbers of the rows among all training rows.
            B: [n_w, K] their codes.
            outputs: [n_w, ...] what the last epoch's steps returned for them.
        """
        return None

    def optimised(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of each optimiser; ``main`` has those of the encoder."""
        return {"main": list(self.parameters())}

    def undecayed(self) -> frozenset[str]:
        """Return the names of optimisers whose learning rate stays as it is."""
        return frozenset()


class Round(NamedTuple):
    """Results of one round of a fit.

    Attributes:
        terms: values of the objective's terms by name.
        converged: whether a further round would change nothing.
        encodes: whether the head can encode rows; some methods have one after the last round only.
    """

    terms: dict[str, float]
    converged: bool
    encodes: bool = True


class ShallowMethod(Method[C]):
    """A method that is fitted to features, in one round or several; nothing is descended."""

    def fit(self, rows: FeatureRows, round: int) -> Round:
        """Do the rounds up to this one that are not done yet; leave the result in the head.

        Args:
            rows: features of all training rows.
            round: 1, 2, ...
        """
        raise NotImplementedError

    def solved_codes(self, rows: FeatureRows) -> NDArray[np.uint8]:
        """Return the codes of all training rows that the fit has solved, if ``solves_codes``.

        Args:
            rows: features of all training rows.

        Returns:
            Packed codes [n, ceil(K/8)], equal on all workers.
        """
        raise NotImplementedError


def weighted(terms: Mapping[str, Tensor], weights: MethodConfig) -> Tensor:
    """Return the sum of loss terms, each times the weight of the same name.

    Args:
        terms: scalars by name.
        weights: a field for each name.
    """
    parts = [getattr(weights, name) * term for name, term in terms.items()]
    return torch.stack(parts).sum()
