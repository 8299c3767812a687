"""One trial of a search: a training run that reports its scores and can be stopped."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.files import is_uri, join, kind_at, remove_folder
from schn_ray.core.workers import Workers
from schn_ray.data.store.reader import Store, open_store
from schn_ray.models.hasher import best_device, load_network
from schn_ray.models.model_files import MODEL
from schn_ray.models.stored_features import StoredFeatures
from schn_ray.training.config import TrainConfig
from schn_ray.training.loop import Iteration
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.recorder import CHECKPOINTS
from schn_ray.training.run import build_run, conclude_run, finish_run, open_run
from schn_ray.tuning.objectives import BITS, ENCODING_COST, VALIDATION_MAP, encoding_cost
from schn_ray.tuning.rows import Outcome, State

TRIALS = "trials"
_LOCK_TIMEOUT_S = 300.0  # a trial's process may run for a while after its search was killed


class Stopped(Exception):
    """The search stops this trial early."""


@dataclass(frozen=True)
class TrialDir:
    """The directory of a trial, as the search and the trial's own process use it.

    Attributes:
        run: the run's directory, such as ``trials/0007``, or its URI.
    """

    run: str

    @property
    def name(self) -> str:
        """The last part of the directory's path."""
        return posixpath.basename(self.run)

    @property
    def stop(self) -> str:
        """The file that the search writes to stop the trial."""
        return join(posixpath.dirname(self.run), f".{self.name}.stop")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the trial's lock, so that no other process that shares the disk runs the trial.

        At a URI there is no lock.
        """
        if is_uri(self.run):
            yield
            return
        run = Path(self.run)
        run.parent.mkdir(parents=True, exist_ok=True)
        with locked(run.with_name(f".{run.name}.lock"), run, _LOCK_TIMEOUT_S):
            yield


def trial_dir(out: str, number: int) -> TrialDir:
    """Return the directory of a trial.

    Args:
        out: the search's directory, or its URI.
        number: of the trial.

    >>> trial_dir("/search", 7).run
    '/search/trials/0007'
    """
    return TrialDir(join(out, f"{TRIALS}/{number:04}"))


ReportScore = Callable[[int, float], None]
"""Called after an iteration, with its number and the best validation mAP until then."""

Train = Callable[[TrainConfig, str, TrialDir, ReportScore], None]
"""Trains a trial to its end, or raises ``Stopped``."""


def run_trial(
    config: TrainConfig,
    store: str,
    directory: TrialDir,
    report: ReportScore,
    train: Train,
    objectives: Iterable[str],
) -> Outcome:
    """Run a trial to its end, or continue it; a finished one is only read.

    Args:
        config: of the trial.
        store: the training store's directory, or its URI.
        directory: of the trial.
        report: called for every iteration, also for those before an interruption.
        train: ``train_trial``, or the same on several workers.
        objectives: names of the figures to return.

    Returns:
        How the trial ended. An error that the settings cause is a failed outcome and is not raised,
        so that the search goes on.

    Raises:
        SchnRayError: a file cannot be read or written, whatever the settings are.
        OSError: the same.
    """
    began = time.monotonic()
    state: State = "failed"
    reason, figures = "", dict[str, float]()
    try:
        with directory.locked():
            for iteration, score in scores(read_metrics(directory.run)):
                report(iteration, score)
            train(config, store, directory, report)
        state, figures = "complete", trial_figures(directory.run, config, objectives)
    except Stopped:
        state = "pruned"
        remove_training_state(directory.run)
    except OSError:
        raise
    except SchnRayError as error:
        if isinstance(error.__cause__, OSError):
            raise  # such as a full disk: every other trial would fail as well
        reason = str(error)
    except Exception as error:  # a library may raise anything for unusual settings
        reason = f"{type(error).__name__}: {error}"
    iterations = len(read_metrics(directory.run))
    return Outcome(state, figures, reason, iterations, time.monotonic() - began)


class Inputs(NamedTuple):
    """What trials are trained on; the trials of a process can share it.

    Attributes:
        store: has the training and validation rows.
        features: of its images, where the backbone is frozen; else None.
    """

    store: Store
    features: StoredFeatures | None


def open_inputs(store: str, features: str | None) -> Inputs:
    """Open what trials are trained on.

    Args:
        store: the training store's directory, or its URI.
        features: the same of the features of its images; None: there are none.

    Raises:
        SchnRayError: not finished, or damaged.
    """
    return Inputs(open_store(store), None if features is None else StoredFeatures(features))


def train_trial(
    config: TrainConfig,
    store_path: str,
    directory: TrialDir,
    report: ReportScore,
    features: str | None = None,
    opened: Callable[[str, str | None], Inputs] = open_inputs,
) -> None:
    """Train a trial in this process.

    Args:
        config: of the trial.
        store_path: the training store's directory, or its URI.
        directory: of the trial.
        report: called after each iteration that has a validation mAP.
        features: of the store's images, where the backbone is frozen; all trials share them.
        opened: returns the inputs; they may be those of an earlier trial.

    Raises:
        Stopped: after an iteration, if the search has written the trial's stop file.
        SchnRayError: these settings cannot be trained.
    """
    store, vectors = opened(store_path, features)
    best_scores = [score for _, score in scores(read_metrics(directory.run))]

    def after_iteration(iteration: Iteration) -> None:
        if iteration.validation_map is not None:
            best_scores.append(max([iteration.validation_map, *best_scores[-1:]]))
            report(iteration.iteration, best_scores[-1])
        if kind_at(directory.stop):
            raise Stopped

    try:
        with open_run(directory.run, config, store) as (mirror, writer):
            run = build_run(config, store, Workers(), best_device(), features=vectors)
            mirror.send()
            finish_run(run, store, directory.run, after_iteration)
            conclude_run(mirror, writer, store)
    except AlreadyDone:
        return


def scores(lines: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return the iterations with a validation mAP, each with the best one until then.

    Args:
        lines: a run's metrics, a dict for each iteration.

    >>> scores([{"iteration": i, "validation_map": v} for i, v in [(1, .5), (2, None), (3, .4)]])
    [(1, 0.5), (3, 0.5)]
    """
    best_so_far: list[tuple[int, float]] = []
    for line in lines:
        score = line["validation_map"]
        if score is not None:
            best = max([score, *(earlier for _, earlier in best_so_far[-1:])])
            best_so_far.append((line["iteration"], best))
    return best_so_far


def trial_figures(run: str, config: TrainConfig, objectives: Iterable[str]) -> dict[str, float]:
    """Return the figures of a finished run by the names of their objectives.

    Args:
        run: its directory, or its URI.
        config: of the trial.
        objectives: the encoding cost is measured only if its name is among them.

    Raises:
        SchnRayError: no iteration has a validation mAP: it was never validated, or no two
            validation rows share a label.
    """
    run_scores = scores(read_metrics(run))
    if not run_scores:
        raise SchnRayError("validation mAP is undefined after every iteration")
    figures = {VALIDATION_MAP: run_scores[-1][1], BITS: float(config.bits)}
    if ENCODING_COST in objectives:
        hasher = load_network(run)
        figures[ENCODING_COST] = encoding_cost(hasher.network, hasher.input_shape)
    return figures


def remove_training_state(run: str) -> None:
    """Remove the checkpoints and the model of a stopped run; its metrics stay.

    Args:
        run: its directory, or its URI; a finished run is not touched.
    """
    if not kind_at(join(run, MANIFEST)):
        for name in (CHECKPOINTS, MODEL):
            remove_folder(join(run, name))
