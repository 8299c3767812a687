"""The training loop: outer iterations of a run, whatever its method, until it is finished."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.bits import pack, sign
from schn_ray.data.images import normalise
from schn_ray.data.labels import multi_hot
from schn_ray.evaluation.metrics.average_precision import average_precision, mean_or_none
from schn_ray.evaluation.metrics.histograms import (
    Histograms,
    distance_histograms,
    without_themselves,
)
from schn_ray.methods.base import Batch, Relaxed
from schn_ray.methods.code_table import CodeTable
from schn_ray.training.batches import (
    Rows,
    dropout_seed,
    global_batches,
    sampled_rows,
    view_draws,
)
from schn_ray.training.state import Diverged, Run

_COMPARED_CLASSES = 1000  # at most, in ``class_code_distance``


@dataclass(frozen=True)
class Iteration:
    """Measurements of one outer iteration: a line of ``metrics.jsonl``.

    Attributes:
        iteration: 1, 2, ...
        loss: mean of each term over the steps, unweighted.
        validation_map: mAP on validation rows, exact under ties; None if not validated.
        unique_share: number of distinct codes of this iteration's rows, divided by the rows.
        code_distance: see ``class_code_distance``.
        images_per_second: of all workers, without validation.
        data_wait: share of the training time that the first worker waited for images.
        learning_rate: the highest of all optimisers.
        workers: number of workers that shared each batch.
    """

    iteration: int
    loss: dict[str, float]
    validation_map: float | None
    unique_share: float
    code_distance: int | None
    images_per_second: float
    data_wait: float
    learning_rate: float
    workers: int


Report = Callable[[Iteration, bool], None]
"""Called after each iteration with its measurements and whether its model is the best so far."""


def train_run(run: Run, report: Report) -> None:
    """Run the remaining outer iterations.

    Args:
        run: at its beginning or as loaded; changed in place.
        report: called after each iteration, on every worker.

    Raises:
        Diverged: a loss is not finite; the message names the iteration and the term.
    """
    # Gradients that vanish, such as those of a discriminator that always wins, become denormal
    # numbers, which a CPU computes many times slower
    torch.set_flush_denormal(True)
    run.precision.set_products()
    while not run.finished:
        run.iteration += 1
        measured = train_iteration(run)
        best = _is_best(run, measured.validation_map)
        if best:
            run.best_map, run.not_better = measured.validation_map, 0
        elif measured.validation_map is not None:
            run.not_better += 1
        report(measured, best)


def train_iteration(run: Run) -> Iteration:
    """Train on the rows of one outer iteration, update their codes, and validate.

    Args:
        run: its ``iteration`` is the one to train; changed in place.

    Returns:
        The measurements.

    Raises:
        Diverged: a loss is not finite.
    """
    started, waited_s = time.monotonic(), run.decoder.waited_s
    torch.manual_seed(dropout_seed(run.seed, run.iteration))
    run.method.begin_iteration(run.iteration)
    rows = sampled_rows(len(run.data), run.schedule.samples, run.seed, run.iteration)
    terms: dict[str, list[Tensor]] = defaultdict(list)
    outputs = _EpochOutputs(len(rows), run.spec.bits, run.device)
    for epoch in range(run.schedule.epochs):
        _train_epoch(run, rows, epoch, terms, outputs)
    loss = _mean_terms(terms, run)
    relaxed = outputs.relaxed()
    if run.codes.update:
        _update_codes(run, outputs.rows, relaxed)
    seconds = time.monotonic() - started
    return Iteration(
        iteration=run.iteration,
        loss=loss,
        validation_map=_validate(run),
        unique_share=_unique_share(run, relaxed.U_v),
        code_distance=class_code_distance(run.table, rows, run.data.labels),
        images_per_second=len(rows) * run.schedule.epochs / seconds,
        data_wait=(run.decoder.waited_s - waited_s) / seconds,
        learning_rate=max(
            group["lr"] for o in run.method.optimisers.values() for group in o.param_groups
        ),
        workers=run.workers.size,
    )


def class_code_distance(table: CodeTable, rows: Rows, labels: csr_array) -> int | None:
    """Return the smallest Hamming distance between the majority codes of two classes.

    Args:
        table: codes of all training rows.
        rows: the rows to take codes from.
        labels: [n, C] of all training rows.

    Returns:
        A number of bits; None if the rows have fewer than two classes. Only the first 1,000 of
        their classes are compared.
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


class _EpochOutputs:
    """This worker's rows of the latest epoch and their relaxed codes, in the order of its steps.

    All epochs share one buffer, since the code update uses only the latest code of each row.
    """

    def __init__(self, capacity: int, bits: int, device: torch.device) -> None:
        self._rows = torch.empty(capacity, dtype=torch.int64)
        self._relaxed = Relaxed(
            *(torch.empty(capacity, bits, device=device) for _ in Relaxed._fields)
        )
        self._count = 0

    def begin_epoch(self) -> None:
        self._count = 0

    def add(self, rows: Rows, relaxed: Relaxed) -> None:
        step = slice(self._count, self._count + len(rows))
        self._rows[step] = torch.from_numpy(rows)
        for buffer, codes in zip(self._relaxed, relaxed, strict=True):
            buffer[step] = codes
        self._count += len(rows)

    @property
    def rows(self) -> Tensor:
        return self._rows[: self._count]

    def relaxed(self) -> Relaxed:
        return Relaxed(*(U[: self._count].cpu() for U in self._relaxed))


def _train_epoch(
    run: Run, rows: Rows, epoch: int, terms: dict[str, list[Tensor]], outputs: _EpochOutputs
) -> None:
    batches = global_batches(rows, run.schedule.batch_size, run.seed, run.iteration, epoch)
    draws = view_draws(len(run.data), run.seed, run.iteration, epoch)
    run.method.networks.train()
    outputs.begin_epoch()
    for batch_rows, views in run.decoder.batches(run.data, batches, draws, run.workers):
        images = normalise(views.to(run.device, non_blocking=True), run.spec.preprocessing)
        batch = Batch(
            images.contiguous(memory_format=torch.channels_last),
            multi_hot(run.data.labels, batch_rows).to(run.device),
            run.table.read(batch_rows).to(run.device),
        )
        step = run.method.step(batch)
        for name, term in step.terms.items():
            terms[name].append(term * run.workers.share(len(batch_rows)))
        outputs.add(batch_rows[run.workers.own(len(batch_rows))], step.relaxed)


def _update_codes(run: Run, rows: Tensor, relaxed: Relaxed) -> None:
    solved = run.method.update(rows, run.table.read(rows), relaxed)
    run.table.write(run.workers.gather_any(rows), run.workers.gather_any(solved))


def _mean_terms(terms: Mapping[str, list[Tensor]], run: Run) -> dict[str, float]:
    own = torch.stack([torch.stack(values).mean() for values in terms.values()])
    means = (run.workers.sum(own) / run.workers.size).tolist()
    loss = dict(zip(terms, means, strict=True))
    if bad := [name for name, value in loss.items() if not np.isfinite(value)]:
        good = (
            f"the last checkpoint, of iteration {run.iteration - 1}, is good"
            if run.iteration > 1
            else "there is no checkpoint yet"
        )
        raise Diverged(
            f"iteration {run.iteration}: the loss term {bad[0]} is not finite; {good}. Lower "
            "schedule.learning_rate or that term's weight, and train into a new directory"
        )
    return loss


def _validate(run: Run) -> float | None:
    due = run.iteration % run.schedule.eval_every == 0
    last = run.iteration == run.schedule.iterations
    if not len(run.validation) or not (due or last):
        return None
    own = run.workers.own(len(run.validation))
    views, labels = run.validation.own_views, run.validation.labels
    size = run.schedule.batch_size
    codes = run.hasher().encode_views(views[at : at + size] for at in range(0, len(views), size))
    gathered = run.workers.gather_any(torch.from_numpy(codes)).numpy()
    # each worker compares all rows with its own queries; the counts are then summed
    part = distance_histograms(gathered, labels, codes, labels[own], run.spec.bits)
    counts = (torch.from_numpy(x) for x in (part.all_rows, part.relevant))
    summed = Histograms(*(run.workers.sum(x).numpy() for x in counts))
    return mean_or_none(average_precision(without_themselves(summed, labels)))


def _is_best(run: Run, validation_map: float | None) -> bool:
    if run.best_map is None or validation_map is None:
        return run.best_map is None  # without any validation so far, the latest is the best
    return validation_map > run.best_map


def _unique_share(run: Run, U_v: Tensor) -> float:
    codes = run.workers.gather_any(torch.from_numpy(pack(sign(U_v))))
    return len(torch.unique(codes, dim=0)) / len(codes)
