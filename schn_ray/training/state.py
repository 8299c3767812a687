"""The state of a training run: saved after each iteration, loaded to go on."""

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
from schn_ray.training.batches import (
    Decoder,
    Rows,
    TrainingImages,
)

LAST, BEST = "last.pt", "best.pt"


@dataclass(frozen=True)
class ValidationImages:
    """The validation rows: each worker shows its part of them to the network.

    Attributes:
        image: store row -> encoded bytes.
        own_rows: where this worker's part lies in the store.
        labels: of all validation rows [m, C].
    """

    image: Callable[[int], bytes]
    own_rows: Rows
    labels: csr_array
    preprocessing: Preprocessing

    @cached_property
    def own_views(self) -> NDArray[np.uint8]:
        """This worker's part, uint8 [m_w, 3, S, S], decoded once: it is seen again and again."""
        size = self.preprocessing.crop
        views = np.zeros((len(self.own_rows), 3, size, size), np.uint8)
        for view, row in zip(views, self.own_rows, strict=True):
            view[:] = evaluation_view(self.image(int(row)), self.preprocessing)
        return views

    def __len__(self) -> int:
        return int(self.labels.shape[0])


class Diverged(SchnRayError):
    """A loss is not finite; every worker says so, and trying again would say it again."""


@dataclass
class Run:
    """Everything that changes while training, and what is needed to change it."""

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
    not_better: int = 0  # validations since the best one

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.precision.device

    @property
    def finished(self) -> bool:
        """Whether all iterations are done, or the last ones brought nothing."""
        patience = self.schedule.patience
        hopeless = patience is not None and self.not_better >= patience
        return hopeless or self.iteration >= self.schedule.iterations

    def save(self, path: Path, best: bool) -> None:
        """Write the state into a directory as ``last.pt``, and as ``best.pt`` if it is that."""
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
        beside = path / f"{LAST}.partial"
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if best:
            (path / BEST).unlink(missing_ok=True)
            (path / BEST).hardlink_to(beside)
        beside.rename(path / LAST)

    def load(self, path: Path) -> None:
        """Go on from the last state that ``save`` wrote; without one, from the beginning."""
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
        """Return the image network as it is now, ready to encode."""
        return Hasher(self.method.encoder, self.spec, self.device)
