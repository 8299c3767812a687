"""The state of a training run: saved after each iteration, loaded to continue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import nn

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.methods.base import Method
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.config import ScheduleConfig
from schn_ray.models.encoder import Encoder
from schn_ray.models.hasher import Hasher
from schn_ray.models.model_files import HasherSpec
from schn_ray.models.precision import Precision
from schn_ray.training.batches import Decoder, Rows, TrainingRows
from schn_ray.training.checkpoints import load_best, load_checkpoint, save_checkpoint


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows; each worker encodes its part of them.

    Attributes:
        read: returns this worker's views [m_w, ...]: uint8 images, or float32 vectors.
        labels: [m, C] of all validation rows.
    """

    read: Callable[[], NDArray[Any]]
    labels: csr_array

    @cached_property
    def own_views(self) -> NDArray[Any]:
        """This worker's views [m_w, ...], read once for all iterations."""
        return self.read()

    def __len__(self) -> int:
        return int(self.labels.shape[0])


class Learned(NamedTuple):
    """Results of one outer iteration, the same on all workers.

    Attributes:
        loss: mean of each term, unweighted.
        rows: [m] training rows that it went over.
        codes: [m, ceil(K/8)] packed codes that the encoder gave them.
        passes: how often it went over them.
        learning_rate: the highest of all optimisers, in the last step; 0 where nothing is
            descended.
        converged: whether a further iteration would change nothing.
    """

    loss: dict[str, float]
    rows: Rows
    codes: NDArray[np.uint8]
    passes: int
    learning_rate: float
    converged: bool = False


_ARRAYS = ("rows", "codes")


class Learner(Protocol):
    """Changes a run's method and codes, an outer iteration at a time.

    Attributes:
        repeats: whether a run that goes on repeats its iterations, as no checkpoint has them.
    """

    repeats: bool

    def iterate(self, run: Run) -> Learned:
        """Do the outer iteration ``run.iteration``.

        Raises:
            SchnRayError: the training rows do not suit the method.
        """

    def most_iterations(self, schedule: ScheduleConfig) -> int | None:
        """Return after how many iterations a run ends; None: when it has converged."""

    def releasable(self, run: Run) -> bool:
        """Tell whether the present model may be released."""

    def validation_due(self, run: Run) -> bool:
        """Tell whether the present model is to be validated."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs of method and learner."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


class StoppedMidway(Exception):
    """A run was asked to stop within an iteration; ``Run.save`` saves it as it is, to go on."""


class Diverged(SchnRayError):
    """A loss is not finite; every worker raises this, and another attempt would raise it again."""


@dataclass
class Steps:
    """How far an iteration is.

    Attributes:
        iteration: its number.
        done: steps of it so far.
        total: steps of it in all.
    """

    iteration: int
    done: int
    total: int

    @property
    def progress(self) -> float:
        """Iterations of training so far, up to the middle of the next step."""
        return self.iteration - 1 + (self.done + 0.5) / self.total


@dataclass
class Run:
    """Everything that changes during training, and what training needs.

    Attributes:
        method: what is trained; its encoder is released.
        learner: how it is trained.
        table: codes of all training rows.
        spec: of the released encoder, but for the head, which the method knows.
        backbone: computes the vectors that a head is trained on, and is released with it; None if
            the method's own backbone is released.
        data: training rows.
        validation: validation rows.
        schedule: outer iterations, epochs, batches.
        seed: decides rows, batches, views and dropout.
        precision: number format of the networks, and their device.
        workers: who shares each global batch.
        decoder: of training images.
        iteration: number of outer iterations done; while one runs, its number.
        best_map: best validation mAP so far.
        not_better: number of validations since the best one.
        converged: whether a further iteration would change nothing.
        history: the measurements of each iteration so far, as in ``metrics.jsonl``.
        stop_requested: whether somebody wants this worker to save the run and to stop.
        learned: results of an iteration that was stopped before it had been validated, or None.
        spent_s: seconds that an iteration had taken when it was stopped.
        steps: of the latest iteration, for whoever watches; None before there is one.
    """

    method: Method[Any]
    learner: Learner
    table: CodeTable
    spec: HasherSpec
    data: TrainingRows
    validation: ValidationRows
    schedule: ScheduleConfig
    seed: int
    precision: Precision
    backbone: nn.Module | None = None
    workers: Workers = field(default_factory=Workers)
    decoder: Decoder = field(default_factory=Decoder)
    iteration: int = 0
    best_map: float | None = None
    not_better: int = 0
    converged: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    stop_requested: Callable[[], bool] = lambda: False
    learned: Learned | None = None
    spent_s: float = 0.0
    steps: Steps | None = None

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.precision.device

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or further ones would not be better."""
        patience = self.schedule.patience
        exhausted = patience is not None and self.not_better >= patience
        most = self.learner.most_iterations(self.schedule)
        done = most is not None and self.iteration >= most
        return self.converged or exhausted or done

    def save(self, path: Path, best: bool) -> None:
        """Write the state as a checkpoint.

        Args:
            path: the directory; created where it is missing.
            best: whether this state's model is the best so far.
        """
        state = {
            "learner": self.learner.state_dict(),
            "codes": self.table.state_dict(),
            "iteration": self.iteration,
            "best_map": self.best_map,
            "not_better": self.not_better,
            "converged": self.converged,
            "history": self.history,
            "learned": self._unvalidated(),
            "spent_s": self.spent_s,
        }
        save_checkpoint(state, path, best)

    def load(self, path: Path) -> None:
        """Restore the last state that is sound; without one, change nothing.

        Args:
            path: the directory of ``save``.

        Raises:
            SchnRayError: all states are damaged, or the workers see different ones.
        """
        state = load_checkpoint(path, self.device)
        if state is not None:
            self.learner.load_state_dict(state["learner"])
            self.table.load_state_dict({k: v.cpu() for k, v in state["codes"].items()})
            self.iteration, self.history = state["iteration"], state["history"]
            self.best_map, self.not_better = state["best_map"], state["not_better"]
            self.converged = state["converged"]
            self.spent_s = state["spent_s"]
            if learned := state["learned"]:
                arrays = {name: learned[name].cpu().numpy() for name in _ARRAYS}
                self.learned = Learned(**(learned | arrays))
        seen = self.workers.gather_any(torch.tensor([self.iteration]))
        if (seen != self.iteration).any():
            raise SchnRayError(
                f"{path}: the workers read states of different iterations: a disk is damaged, or "
                "not the same for all of them"
            )

    @contextmanager
    def best_model(self, path: Path) -> Iterator[dict[str, Any]]:
        """Give the method the weights of its best model for the time of the block.

        Args:
            path: the directory of ``save``.

        Yields:
            The measurements of its iteration.

        Raises:
            SchnRayError: the state is damaged.
        """
        state, present = load_best(path), deepcopy(self.method.state_dict())
        self.method.load_state_dict(state["learner"]["method"])
        try:
            yield state["history"][-1]
        finally:
            self.method.load_state_dict(present)

    def _unvalidated(self) -> dict[str, Any] | None:
        if self.learned is None or self.learner.repeats:
            return None
        arrays = {name: torch.from_numpy(getattr(self.learned, name)) for name in _ARRAYS}
        return self.learned._asdict() | arrays

    def must_stop(self) -> bool:
        """Tell whether any worker was asked to stop; all workers call this, and raise it."""
        return self.workers.any(self.stop_requested())

    def hasher(self) -> Hasher:
        """Return the hasher to release, in its present state; it shares the weights."""
        encoder = self.method.encoder
        if self.backbone is not None:
            encoder = Encoder(self.backbone, encoder.head)
        spec = self.spec.model_copy(update={"head": self.method.head_spec})
        return Hasher(encoder, spec, self.device)

    def row_hasher(self) -> Hasher:
        """Return a hasher of rows as the training rows come; it shares the weights."""
        if self.backbone is None:
            return self.hasher()
        update = {"head": self.method.head_spec, "preprocessing": None}
        return Hasher(self.method.encoder, self.spec.model_copy(update=update), self.device)

    def encode(self, views: NDArray[Any]) -> NDArray[np.uint8]:
        """Encode rows as the training rows come: images, or vectors of the frozen backbone.

        Args:
            views: [m, ...] as ``ValidationRows.own_views``.

        Returns:
            Packed codes [m, ceil(K/8)].
        """
        hasher, size = self.row_hasher(), self.schedule.batch_size
        return hasher.encode_views(views[at : at + size] for at in range(0, len(views), size))
