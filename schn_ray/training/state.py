"""The state of a training run: saved after each iteration, loaded to continue."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.data.images import Preprocessing, evaluation_view
from schn_ray.methods.base import Method
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.deep.schn.config import CodesConfig
from schn_ray.models.hasher import Hasher, HasherSpec
from schn_ray.models.precision import Precision
from schn_ray.training.batches import Decoder, Rows, TrainingImages

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True)
class ValidationImages:
    """The validation rows; each worker encodes its part of them.

    Attributes:
        image: store row -> bytes of the image file.
        own_rows: [m_w] numbers of this worker's rows in the store.
        labels: [m, C] of all validation rows.
        preprocessing: from an image to the network's input.
    """

    image: Callable[[int], bytes]
    own_rows: Rows
    labels: csr_array
    preprocessing: Preprocessing

    @cached_property
    def own_views(self) -> NDArray[np.uint8]:
        """This worker's views, uint8 [m_w, 3, S, S], decoded once for all iterations."""
        size = self.preprocessing.crop
        views = np.zeros((len(self.own_rows), 3, size, size), np.uint8)
        for view, row in zip(views, self.own_rows, strict=True):
            view[:] = evaluation_view(self.image(int(row)), self.preprocessing)
        return views

    def __len__(self) -> int:
        return int(self.labels.shape[0])


class Diverged(SchnRayError):
    """A loss is not finite; every worker raises this, and another attempt would raise it again."""


@dataclass
class Run:
    """Everything that changes during training, and what training needs.

    Attributes:
        method: networks, optimisers, step and code update.
        table: codes of all training rows.
        spec: of the image network.
        data: training rows.
        validation: validation rows.
        schedule: outer iterations, epochs, batches.
        codes: whether and how codes are updated.
        seed: decides rows, batches, views and dropout.
        precision: number format of the networks, and their device.
        workers: who shares each global batch.
        decoder: of training images.
        iteration: number of outer iterations done; while one runs, its number.
        best_map: best validation mAP so far.
        not_better: number of validations since the best one.
    """

    method: Method
    table: CodeTable
    spec: HasherSpec
    data: TrainingImages
    validation: ValidationImages
    schedule: ScheduleConfig
    codes: CodesConfig
    seed: int
    precision: Precision
    workers: Workers = field(default_factory=Workers)
    decoder: Decoder = field(default_factory=Decoder)
    iteration: int = 0
    best_map: float | None = None
    not_better: int = 0

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self.precision.device

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or the last ``patience`` validations were no better."""
        patience = self.schedule.patience
        exhausted = patience is not None and self.not_better >= patience
        return exhausted or self.iteration >= self.schedule.iterations

    def save(self, path: Path, best: bool) -> None:
        """Write the state as ``last.pt``, and also as ``best.pt`` if it is the best.

        Args:
            path: the directory; created where it is missing.
            best: whether this state's model is the best so far.
        """
        optimisers = {name: o.state_dict() for name, o in self.method.optimisers.items()}
        state = {
            "networks": self.method.networks.state_dict(),
            "optimisers": optimisers,
            "codes": self.table.state_dict(),
            "iteration": self.iteration,
            "best_map": self.best_map,
            "not_better": self.not_better,
        }
        path.mkdir(parents=True, exist_ok=True)
        partial_path = path / f"{LAST}.partial"
        with partial_path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if best:
            (path / BEST).unlink(missing_ok=True)
            (path / BEST).hardlink_to(partial_path)
        partial_path.rename(path / LAST)

    def load(self, path: Path) -> None:
        """Restore the last state that ``save`` wrote; without one, change nothing.

        Args:
            path: the directory of ``save``.
        """
        if not (path / LAST).is_file():
            return
        state = torch.load(path / LAST, map_location=self.device, weights_only=True)
        self.method.networks.load_state_dict(state["networks"])
        for name, optimiser in self.method.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.table.load_state_dict({k: v.cpu() for k, v in state["codes"].items()})
        self.iteration = state["iteration"]
        self.best_map, self.not_better = state["best_map"], state["not_better"]

    def hasher(self) -> Hasher:
        """Return a hasher of the image network in its present state; it shares the weights."""
        return Hasher(self.method.encoder, self.spec, self.device)
