"""A training run: its state, one outer iteration, and the loop. It knows no method by name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.batches import (
    Rows,
    TrainingImages,
    dropout_seed,
    epoch_batches,
    global_batches,
    sampled_rows,
    view_draws,
)
from schn_ray.codes import CodeTable, pack, sign
from schn_ray.config import CodesConfig, ScheduleConfig
from schn_ray.distributed import Workers
from schn_ray.errors import SchnRayError
from schn_ray.hasher import Hasher, HasherSpec
from schn_ray.histograms import self_histograms
from schn_ray.images import evaluation_view, normalise
from schn_ray.labels import multi_hot
from schn_ray.method import Batch, Method, Relaxed
from schn_ray.metrics import average_precision, mean_or_none

STATE = "state.pt"
_COMPARED_CLASSES = 1000


@dataclass(frozen=True)
class ValidationImages:
    """The validation rows, prepared once: they are few and seen after every iteration.

    Attributes:
        views: uint8 [m, 3, S, S].
        labels: [m, C].
    """

    views: NDArray[np.uint8]
    labels: csr_array

    @classmethod
    def read(
        cls, image: Callable[[int], bytes], store_rows: Rows, labels: csr_array, spec: HasherSpec
    ) -> ValidationImages:
        """Decode the validation rows of a store."""
        size = spec.preprocessing.crop
        views = np.zeros((len(store_rows), 3, size, size), np.uint8)
        for view, row in zip(views, store_rows, strict=True):
            view[:] = evaluation_view(image(int(row)), spec.preprocessing)
        return cls(views, labels)

    def __len__(self) -> int:
        return len(self.views)


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
    workers: Workers = field(default_factory=Workers)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    iteration: int = 0
    best_map: float | None = None

    def save(self, path: Path) -> None:
        """Write the state into a directory; ``load`` reads it without unpickling objects."""
        optimisers = {name: o.state_dict() for name, o in self.method.optimisers.items()}
        state = {
            "networks": self.method.networks.state_dict(),
            "optimisers": optimisers,
            "codes": self.table.state_dict(),
            "iteration": self.iteration,
            "best_map": self.best_map,
        }
        beside = path / f"{STATE}.partial"
        torch.save(state, beside)
        beside.rename(path / STATE)

    def load(self, path: Path) -> None:
        """Go on from a state that ``save`` wrote."""
        state = torch.load(path / STATE, map_location=self.device, weights_only=True)
        self.method.networks.load_state_dict(state["networks"])
        for name, optimiser in self.method.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.table.load_state_dict({k: v.cpu() for k, v in state["codes"].items()})
        self.iteration = state["iteration"]
        self.best_map = state["best_map"]

    def hasher(self) -> Hasher:
        """Return the image network as it is now, ready to encode."""
        return Hasher(self.method.encoder, self.spec, self.device)


@dataclass(frozen=True)
class Iteration:
    """What one outer iteration measured: a line of ``metrics.jsonl``."""

    iteration: int
    loss: dict[str, float]
    validation_map: float | None
    unique_share: float
    code_distance: int | None
    images_per_second: float
    learning_rate: float


Report = Callable[[Iteration, bool], None]
"""Called after each iteration with what it measured and whether its model is the best so far."""


def train(run: Run, report: Report) -> None:
    """Run all outer iterations that are left.

    Raises:
        SchnRayError: a loss is not finite; the iteration and the term are named.
    """
    # gradients that fade, such as a discriminator's that has won, end in denormal numbers, which a
    # CPU computes many times slower
    torch.set_flush_denormal(True)
    while run.iteration < run.schedule.iterations:
        run.iteration += 1
        measured = train_iteration(run)
        best = _is_best(run, measured.validation_map)
        if best:
            run.best_map = measured.validation_map
        report(measured, best)


def train_iteration(run: Run) -> Iteration:
    """Train some epochs over the sampled rows, solve their codes, and validate."""
    started = time.monotonic()
    torch.manual_seed(dropout_seed(run.seed, run.iteration, run.workers.rank))
    run.method.begin_iteration(run.iteration)
    rows = sampled_rows(len(run.data), run.schedule.samples, run.seed, run.iteration)
    terms: dict[str, list[Tensor]] = defaultdict(list)
    for epoch in range(run.schedule.epochs):
        seen = _train_epoch(run, rows, epoch, terms)
    loss = _mean_terms(terms, run)
    if run.codes.update:
        _update_codes(run, seen)
    seconds = time.monotonic() - started
    return Iteration(
        iteration=run.iteration,
        loss=loss,
        validation_map=_validate(run),
        unique_share=_unique_share(run, seen.relaxed.U_v),
        code_distance=class_code_distance(run.table, rows, run.data.labels),
        images_per_second=len(rows) * run.schedule.epochs / seconds,
        learning_rate=max(
            group["lr"] for o in run.method.optimisers.values() for group in o.param_groups
        ),
    )


def class_code_distance(table: CodeTable, rows: Rows, labels: csr_array) -> int | None:
    """Return the smallest Hamming distance between two classes' majority codes.

    Of the classes that the rows have, the 1,000 first are compared; None if fewer than two.
    """
    counts = labels[rows]
    present = np.flatnonzero(counts.sum(axis=0))[:_COMPARED_CLASSES]
    if len(present) < 2:
        return None
    votes = counts[:, present].T.astype(np.float32) @ table.read(rows).numpy()
    codes = np.where(votes >= 0, 1.0, -1.0).astype(np.float32)
    distances = (codes.shape[1] - codes @ codes.T) / 2
    np.fill_diagonal(distances, np.inf)
    return int(distances.min())


@dataclass(frozen=True)
class _Seen:
    """This worker's rows of an epoch and their relaxed codes, in the order of its steps."""

    rows: Tensor
    relaxed: Relaxed


def _train_epoch(run: Run, rows: Rows, epoch: int, terms: dict[str, list[Tensor]]) -> _Seen:
    schedule = run.schedule
    batches = global_batches(rows, schedule.batch_size, run.seed, run.iteration, epoch)
    draws = view_draws(len(run.data), run.seed, run.iteration, epoch)
    run.method.networks.train()
    own_rows, relaxed = [], []
    for batch_rows, views in epoch_batches(run.data, batches, draws, run.workers):
        images = normalise(views.to(run.device, non_blocking=True), run.spec.preprocessing)
        batch = Batch(
            images,
            multi_hot(run.data.labels, batch_rows).to(run.device),
            run.table.read(batch_rows).to(run.device),
        )
        step = run.method.step(batch)
        for name, term in step.terms.items():
            terms[name].append(term * run.workers.share(len(batch_rows)))
        own_rows.append(torch.from_numpy(batch_rows[run.workers.own(len(batch_rows))]))
        relaxed.append(step.relaxed)
    joined = Relaxed(*(torch.cat(codes) for codes in zip(*relaxed, strict=True)))
    return _Seen(torch.cat(own_rows), joined)


def _update_codes(run: Run, seen: _Seen) -> None:
    B = run.table.read(seen.rows)
    solved = run.method.update(seen.rows, B, Relaxed(*(U.cpu() for U in seen.relaxed)))
    run.table.write(run.workers.gather_any(seen.rows), run.workers.gather_any(solved))


def _mean_terms(terms: Mapping[str, list[Tensor]], run: Run) -> dict[str, float]:
    own = torch.stack([torch.stack(values).mean() for values in terms.values()])
    means = (run.workers.sum(own) / run.workers.size).tolist()
    loss = dict(zip(terms, means, strict=True))
    if bad := [name for name, value in loss.items() if not np.isfinite(value)]:
        raise SchnRayError(
            f"iteration {run.iteration}: the loss term {bad[0]} is not finite. Lower "
            "schedule.learning_rate or that term's weight, and train into a new directory; the "
            f"last checkpoint, of iteration {run.iteration - 1}, is good"
        )
    return loss


def _validate(run: Run) -> float | None:
    due = run.iteration % run.schedule.eval_every == 0
    last = run.iteration == run.schedule.iterations
    if not len(run.validation) or not (due or last):
        return None
    own = run.validation.views[run.workers.own(len(run.validation))]
    size = run.schedule.batch_size
    codes = run.hasher().encode_views(own[at : at + size] for at in range(0, len(own), size))
    everyones = run.workers.gather_any(torch.from_numpy(codes)).numpy()
    histograms = self_histograms(everyones, run.validation.labels, run.spec.bits)
    return mean_or_none(average_precision(histograms))


def _is_best(run: Run, validation_map: float | None) -> bool:
    if run.best_map is None or validation_map is None:
        return run.best_map is None  # nothing to choose by yet, or ever: the last is the one
    return validation_map > run.best_map


def _unique_share(run: Run, U_v: Tensor) -> float:
    codes = run.workers.gather_any(torch.from_numpy(pack(sign(U_v.cpu()))))
    return len(torch.unique(codes, dim=0)) / len(codes)
