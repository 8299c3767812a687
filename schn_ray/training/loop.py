"""The training loop: outer iterations of a run, whatever its method, until it is finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from schn_ray.core.bits import unpack
from schn_ray.evaluation.metrics.average_precision import average_precision, mean_or_none
from schn_ray.evaluation.metrics.histograms import (
    Histograms,
    distance_histograms,
    without_themselves,
)
from schn_ray.training.batches import dropout_seed
from schn_ray.training.state import Diverged, Learned, Run, StoppedMidway

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
        learning_rate: the highest of all optimisers, in the last step.
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
        StoppedMidway: ``run.stop_requested`` said so; the run can be saved, and goes on there.
    """
    # Gradients that vanish, such as those of a discriminator that always wins, become denormal
    # numbers, which a CPU computes many times slower
    torch.set_flush_denormal(True)
    run.precision.set_products()
    while not run.finished:
        run.iteration += 1
        try:
            measured = train_iteration(run)
        except StoppedMidway:
            run.iteration -= 1  # those that are done
            raise
        best = run.learner.releasable(run) and _is_best(run, measured.validation_map)
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
        StoppedMidway: see ``train_run``.
    """
    waited_s = run.decoder.waited_s
    torch.manual_seed(dropout_seed(run.seed, run.iteration))
    learned, seconds = _learned(run)
    validation_map = _validate(run)
    run.learned, run.spent_s = None, 0.0
    return Iteration(
        iteration=run.iteration,
        loss=learned.loss,
        validation_map=validation_map,
        unique_share=len(np.unique(learned.codes, axis=0)) / len(learned.codes),
        code_distance=_code_distance(learned, run),
        images_per_second=learned.passes * len(learned.rows) / seconds,
        data_wait=(run.decoder.waited_s - waited_s) / seconds,
        learning_rate=learned.learning_rate,
        workers=run.workers.size,
    )


def _learned(run: Run) -> tuple[Learned, float]:
    """Return an iteration's results, and the seconds that it took, also before it was stopped."""
    started = time.monotonic() - run.spent_s
    try:
        learned = run.learned or run.learner.iterate(run)
    finally:
        run.spent_s = time.monotonic() - started
    _require_finite(learned.loss, run)
    run.converged, run.learned = learned.converged, learned
    return learned, run.spent_s


def class_code_distance(codes: Tensor, labels: csr_array) -> int | None:
    """Return the smallest Hamming distance between the majority codes of two classes.

    Args:
        codes: [m, K] signs; 0 for a row without a code.
        labels: [m, C] of the same rows.

    Returns:
        A number of bits; None if the rows have fewer than two classes. Only the first 1,000 of
        their classes are compared.
    """
    present = np.flatnonzero(labels.sum(axis=0))[:_COMPARED_CLASSES]
    if len(present) < 2:
        return None
    votes = labels[:, present].T.astype(np.float32) @ codes.numpy()
    majority = np.where(votes >= 0, 1.0, -1.0).astype(np.float32)
    distances = (majority.shape[1] - majority @ majority.T) / 2
    np.fill_diagonal(distances, np.inf)
    return int(distances.min())


def _code_distance(learned: Learned, run: Run) -> int | None:
    """Compare the learned codes, or those of the encoder where the method learns none."""
    rows = learned.rows
    if run.table.coded.any():
        codes = run.table.read(rows)
    else:
        codes = torch.from_numpy(unpack(learned.codes, run.spec.bits))
    return class_code_distance(codes, run.data.labels[rows])


def _require_finite(loss: Mapping[str, float], run: Run) -> None:
    bad = [name for name, value in loss.items() if not np.isfinite(value)]
    if not bad:
        return
    good = (
        f"the last checkpoint, of iteration {run.iteration - 1}, is good"
        if run.iteration > 1
        else "there is no checkpoint yet"
    )
    raise Diverged(
        f"iteration {run.iteration}: the loss term {bad[0]} is not finite; {good}. Lower "
        "optimiser.learning_rate or that term's weight, and train into a new directory"
    )


def _validate(run: Run) -> float | None:
    if not len(run.validation) or not run.learner.validation_due(run):
        return None
    own = run.workers.own(len(run.validation))
    labels, codes = run.validation.labels, _validation_codes(run)
    gathered = run.workers.gather_any(torch.from_numpy(codes)).numpy()
    # each worker compares all rows with its own queries; the counts are then summed
    part = distance_histograms(gathered, labels, codes, labels[own], run.spec.bits)
    counts = (torch.from_numpy(x) for x in (part.all_rows, part.relevant))
    summed = Histograms(*(run.workers.sum(x).numpy() for x in counts))
    return mean_or_none(average_precision(without_themselves(summed, labels)))


def _validation_codes(run: Run) -> NDArray[np.uint8]:
    views, size = run.validation.own_views, run.schedule.batch_size
    hasher, codes = run.row_hasher(), []
    for at in range(0, max(run.workers.rows_of_each(len(run.validation))), size):
        if run.must_stop():
            raise StoppedMidway
        codes.append(hasher.encode_views([views[at : at + size]]))
    return np.concatenate(codes)


def _is_best(run: Run, validation_map: float | None) -> bool:
    if run.best_map is None or validation_map is None:
        return run.best_map is None  # without any validation so far, the latest is the best
    return validation_map > run.best_map
