"""The trials of a suite: settings of a method, judged by rows held out of the training rows.

No trial sees a query. The best settings are then trained and measured as any other cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from time import process_time
from typing import Any

from schn_ray.core.checked_lines import checked_line, parse_checked_line
from schn_ray.core.directories import AlreadyDone, another_request, difference, request_of
from schn_ray.core.documents import BadDocument
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import REQUEST
from schn_ray.core.storage.files import join, kind_at, read_file, remove_folder, write_file
from schn_ray.data.store.reader import Store, open_store
from schn_ray.suites.cells import (
    Cell,
    Ended,
    Key,
    SuitePiece,
    cell_config,
    cpu_time,
    features_location,
)
from schn_ray.suites.draws import settings_to_try
from schn_ray.suites.suite import Suite, store_location
from schn_ray.training.config import TrainConfig
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import run_request, train_locally
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.trial import ReportScore, TrialDir, run_trial
from schn_ray.tuning.trial_settings import Values, with_values

TRIALS = "trials"


@dataclass(frozen=True)
class SuiteTrial(SuitePiece):
    """Settings of a method, to be judged on a data set at one code length.

    Attributes:
        trial: which of the settings to try; 0: the published ones.
    """

    trial: int

    @property
    def name(self) -> str:
        """Name of its directory, in the suite's, while it runs."""
        return f"{TRIALS}/{self.data}/{self.method}-{self.bits}/{self.trial:04}"

    def __str__(self) -> str:
        return f"{super().__str__()}, trial {self.trial}"


@dataclass(frozen=True)
class Tried:
    """How a trial ended.

    Attributes:
        trial: which.
        validation_map: of the model as it would be released; None if the trial failed.
        train_s: seconds of CPU time, all threads; None if it was interrupted.
        reason: why it failed; "" if it did not.
    """

    trial: SuiteTrial
    validation_map: float | None
    train_s: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.validation_map is None:
            return f"{self.trial}: failed: {self.reason}"
        seconds = cpu_time(self.train_s)
        return f"{self.trial}: validation mAP {self.validation_map:.4f}{seconds}"


@dataclass(frozen=True)
class Choice:
    """The best settings of a method on a data set at one code length.

    Attributes:
        data: name of the data set.
        method: name of the method.
        bits: of the codes.
        trial: the best by validation mAP; 0: the published settings.
        settings: dotted key -> value, where they differ from the published ones.
        validation_map: of the best; None where nothing was tried.
        published_validation_map: of the published settings; None where they failed, too.
        trials: how many were tried; 1: the method has nothing to search.
        failures: (trial, reason) of those that have no validation mAP.
        train_s: seconds of CPU time of all trials; None where one was interrupted, or none was run.
    """

    data: str
    method: str
    bits: int
    trial: int
    settings: Values
    validation_map: float | None
    published_validation_map: float | None
    trials: int
    failures: tuple[tuple[str, str], ...]
    train_s: float | None

    @property
    def failed(self) -> int:
        """How many trials failed."""
        return len(self.failures)


def trials_of(suite: Suite, ended: Iterable[Ended]) -> list[SuiteTrial]:
    """List the trials of a suite's budget: of each method that has something to search.

    Args:
        suite: the suite.
        ended: its cells; where one could not be trained, its method is not tried.
    """
    counts = {cell: len(_tries(suite, *cell)) for cell in _trained(suite, ended)}
    combinations = [
        (*cell, trial) for cell, count in counts.items() if count > 1 for trial in range(count)
    ]
    return [SuiteTrial(number, *values) for number, values in enumerate(combinations)]


def try_settings(trial: SuiteTrial, suite: Suite, out: str) -> Tried:
    """Train a trial and judge it, or go on with it; one that has ended is only read.

    Its model goes when its score is written.

    Args:
        trial: which.
        suite: that it belongs to.
        out: directory or URI of the suite.

    Raises:
        OSError: the disk, say, whatever the trial.
        SchnRayError: the same.
    """
    run = join(out, trial.name)
    features = features_location(trial.data, suite, out)
    try:
        store = open_store(store_location(trial.data, out))
        config = _trial_config(trial, suite, settings_of_inputs(store.location, features))
        if not len(store.rows("validation")):
            store = store.with_held_out(suite.budget.held_out, suite.budget.seed)
            # judged at its end, as a training without validation rows releases its last model
            config = with_values(config, {"schedule.eval_every": config.schedule.iterations})
        request = request_of("trial", *run_request(config, store, features))
        tried = _read(trial, request, run)
    except SchnRayError as error:
        if isinstance(error.__cause__, OSError):
            raise  # such as a full disk: every other trial would fail as well
        return Tried(trial, None, reason=str(error))
    if tried is None:
        tried = _trained_trial(trial, config, store, features, run)
        line = checked_line({_REQUEST: request, _RESULT: _without_trial(tried)})
        write_file(_record(run), line.encode())
    remove_folder(run)
    return tried


def choices_of(suite: Suite, ended: Iterable[Ended], tried: Iterable[Tried]) -> list[Choice]:
    """Return the best settings of each method whose trials have all ended.

    Args:
        suite: the suite.
        ended: its cells.
        tried: its trials.
    """
    known = {(*one.trial.key, one.trial.trial): one for one in tried}
    choices = []
    for cell in _trained(suite, ended):
        tries = _tries(suite, *cell)
        own = [known[*cell, trial] for trial in range(len(tries)) if (*cell, trial) in known]
        if len(own) == len(tries) or len(tries) == 1:
            choices.append(_choice(cell, tries, own))
    return choices


def tuned_cells(suite: Suite, choices: Iterable[Choice]) -> list[Cell]:
    """List the cells of settings that did better than the published ones, seed by seed.

    Args:
        suite: the suite.
        choices: of its trials.
    """
    better = [choice for choice in choices if choice.trial]
    return [
        Cell(number, choice.data, choice.method, choice.bits, seed, choice.trial)
        for number, (seed, choice) in enumerate(product(suite.seeds, better))
    ]


def _trained(suite: Suite, ended: Iterable[Ended]) -> list[Key]:
    """Return what the budget is for: the methods that could be trained with published settings."""
    if suite.budget.trials == 1:
        return []
    trained: dict[Key, bool] = {}
    for one in ended:
        trained[one.cell.key] = trained.get(one.cell.key, True) and one.cost is not None
    return [key for key, is_trained in trained.items() if is_trained]


def _tries(suite: Suite, data: str, method: str, bits: int) -> tuple[Values, ...]:
    published = cell_config(Cell(0, data, method, bits, suite.budget.seed), suite, {})
    return settings_to_try(published, suite.budget, suite.settings)


def _trial_config(trial: SuiteTrial, suite: Suite, given: Mapping[str, Any]) -> TrainConfig:
    cell = Cell(0, trial.data, trial.method, trial.bits, suite.budget.seed, trial.trial)
    return cell_config(cell, suite, given)


def _trained_trial(
    trial: SuiteTrial, config: TrainConfig, store: Store, features: str | None, run: str
) -> Tried:
    began, whole = process_time(), kind_at(join(run, REQUEST)) is None

    def train(config: TrainConfig, _: str, directory: TrialDir, __: ReportScore) -> None:
        with suppress(AlreadyDone):
            train_locally(config, store, directory.run, features=features)

    outcome = run_trial(
        config, store.location, TrialDir(run), lambda *_: None, train, (VALIDATION_MAP,)
    )
    return Tried(
        trial,
        outcome.figures.get(VALIDATION_MAP),
        process_time() - began if whole else None,
        outcome.reason,
    )


def _choice(cell: Key, tries: Sequence[Values], tried: Sequence[Tried]) -> Choice:
    scores = {t.trial.trial: t.validation_map for t in tried if t.validation_map is not None}
    best = min(scores, key=lambda trial: (-scores[trial], trial), default=0)
    seconds = [t.train_s for t in tried if t.train_s is not None]
    return Choice(
        *cell,
        best,
        tries[best],
        scores.get(best),
        scores.get(0),
        len(tries),
        tuple((str(t.trial), t.reason) for t in tried if t.validation_map is None),
        sum(seconds) if seconds and len(seconds) == len(tried) else None,
    )


_REQUEST, _RESULT = "request", "result"  # of a trial's record


def _record(run: str) -> str:
    return f"{run}.json"


def _without_trial(tried: Tried) -> dict[str, Any]:
    return {name: value for name, value in asdict(tried).items() if name != "trial"}


def _read(trial: SuiteTrial, request: dict[str, Any], run: str) -> Tried | None:
    """Read how a trial ended; None where it has not, or its record is damaged.

    Raises:
        SchnRayError: it was another request's.
    """
    file = _record(run)
    try:
        record = parse_checked_line(read_file(file), file)
        lines = difference(record[_REQUEST], request)
        tried = Tried(trial, **record[_RESULT])
    except (FileNotFoundError, BadDocument, KeyError, TypeError):
        return None
    if lines:
        raise another_request(file, lines)
    return tried
