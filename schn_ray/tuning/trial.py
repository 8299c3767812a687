"""One trial: a run as ``training.train_here`` has it, told as it goes, stopped when asked."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.files import is_uri, join, kind_at, remove_folder
from schn_ray.core.workers import Workers
from schn_ray.data.store.reader import open_store
from schn_ray.models.hasher import MODEL, best_device, load
from schn_ray.training.config import TrainConfig
from schn_ray.training.loop import Iteration
from schn_ray.training.recorder import CHECKPOINTS, read_metrics
from schn_ray.training.run import build_run, conclude_run, finish_run, open_run
from schn_ray.tuning.objectives import BITS, ENCODING_COST, VALIDATION_MAP, encoding_cost
from schn_ray.tuning.study import Outcome, State

TRIALS = "trials"
_DYING_S = 300.0  # what the process of a trial may take to die after its search was killed


class Stopped(Exception):
    """The search has no more use for this trial."""


@dataclass(frozen=True)
class TrialDir:
    """Where a trial is, for the search and for the process that runs it.

    Attributes:
        run: its run directory, such as ``trials/0007``, or its URI.
    """

    run: str

    @property
    def name(self) -> str:
        """The last part of where it is."""
        return posixpath.basename(self.run)

    @property
    def stop(self) -> str:
        """A file that the search writes to have the trial stopped."""
        return join(posixpath.dirname(self.run), f".{self.name}.stop")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process of a machine, or of those that share a disk, that runs the trial."""
        if is_uri(self.run):
            yield
            return
        run = Path(self.run)
        run.parent.mkdir(parents=True, exist_ok=True)
        with locked(run.with_name(f".{run.name}.lock"), run, _DYING_S):
            yield


def trial_dir(out: str, number: int) -> TrialDir:
    """Return where trial ``number`` of a search is."""
    return TrialDir(join(out, f"{TRIALS}/{number:04}"))


Tell = Callable[[int, float], None]
"""Called with an iteration and the best validation mAP until then."""

Train = Callable[[TrainConfig, str, TrialDir, Tell], None]
"""Trains a trial to its end, or raises ``Stopped``."""


def run_trial(
    config: TrainConfig,
    store: str,
    place: TrialDir,
    tell: Tell,
    train: Train,
    objectives: Iterable[str],
) -> Outcome:
    """Run a trial, or go on with it, and say how it ended; of a finished one only that.

    Args:
        config: of the trial.
        store: the training store's directory, or its URI.
        place: of the trial.
        tell: hears of every iteration, of earlier lives too.
        train: ``train_in_this_process``, or the same on several workers.
        objectives: which figures are wanted.

    Returns:
        An error that is the settings' fault is an outcome, not raised: the search goes on.

    Raises:
        SchnRayError: a file could not be read or written, which is no setting's fault.
        OSError: the same.
    """
    began = time.monotonic()
    state: State = "failed"
    reason, figures = "", dict[str, float]()
    try:
        with place.alone():
            for iteration, score in scores(read_metrics(place.run)):
                tell(iteration, score)
            train(config, store, place, tell)
        state, figures = "complete", measured(place.run, config, objectives)
    except Stopped:
        state = "pruned"
        forget_state(place.run)
    except OSError:
        raise
    except SchnRayError as error:
        if isinstance(error.__cause__, OSError):
            raise  # such as a full disk: any other trial would fail too
        reason = str(error)
    except Exception as error:  # of a library, about settings that nobody tried before
        reason = f"{type(error).__name__}: {error}"
    iterations = len(read_metrics(place.run))
    return Outcome(state, figures, reason, iterations, time.monotonic() - began)


def train_in_this_process(
    config: TrainConfig, store_path: str, place: TrialDir, tell: Tell
) -> None:
    """Train alone, on what this process was given of the machine.

    Raises:
        Stopped: the search said so, after an iteration.
        SchnRayError: these settings cannot be trained.
    """
    store = open_store(store_path)
    best = [score for _, score in scores(read_metrics(place.run))]

    def reported(iteration: Iteration) -> None:
        if iteration.validation_map is not None:
            best.append(max([iteration.validation_map, *best[-1:]]))
            tell(iteration.iteration, best[-1])
        if kind_at(place.stop):
            raise Stopped

    try:
        with open_run(place.run, config, store) as (mirror, draft):
            run = build_run(config, store, Workers(), best_device())
            mirror.send()
            finish_run(run, store, place.run, reported)
            # a search has many, and needs none any more
            remove_folder(join(place.run, CHECKPOINTS))
            conclude_run(mirror, draft, store)
    except AlreadyDone:
        return


def scores(lines: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Return iteration and best validation mAP until then, of a run's metrics.

    >>> scores([{"iteration": i, "validation_map": v} for i, v in [(1, .5), (2, None), (3, .4)]])
    [(1, 0.5), (3, 0.5)]
    """
    found: list[tuple[int, float]] = []
    for line in lines:
        score = line["validation_map"]
        if score is not None:
            found.append((line["iteration"], max([score, *(best for _, best in found[-1:])])))
    return found


def measured(run: str, config: TrainConfig, objectives: Iterable[str]) -> dict[str, float]:
    """Return the figures of a finished run.

    Raises:
        SchnRayError: no iteration was validated, or no validation row has a relevant other one.
    """
    found = scores(read_metrics(run))
    if not found:
        raise SchnRayError("validation mAP is undefined after every iteration")
    figures = {VALIDATION_MAP: found[-1][1], BITS: float(config.bits)}
    if ENCODING_COST in objectives:
        hasher = load(run)
        figures[ENCODING_COST] = encoding_cost(hasher.network, hasher.spec.preprocessing.crop)
    return figures


def forget_state(run: str) -> None:
    """Remove what only going on would need; the metrics stay."""
    if not kind_at(join(run, MANIFEST)):
        for name in (CHECKPOINTS, MODEL):
            remove_folder(join(run, name))
