"""The trials of a search, in an Optuna study on disk: the only thing that a search remembers.

Whoever runs the trials asks here for the next one, tells what each iteration measured, and tells
how it ended. All of it is in ``study.db`` before anything is done about it, so a search that is
killed at any moment goes on from there: a trial that had begun is proposed again with its number
and its settings, what it had told is known, and what is proposed next depends on the seed, the
trial's number and the trials so far, not on how often the search was stopped.

SQLite and not Optuna's journal file: a kill in the middle of an append leaves half a line in the
journal, after which the study does not open; SQLite rolls back.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from schn_ray.training.config import TrainConfig
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.space import Domain, Space, Values, starting_point

STUDY, STUDY_NAME = "study.db", "schn-ray"
State = Literal["running", "complete", "pruned", "failed"]

_SETTINGS, _FIGURES, _REASON = "settings", "figures", "reason"
_SECONDS, _ITERATIONS, _REPEATED, _SITTINGS = "seconds", "iterations", "repeats", "sittings"
_TRIES = 5  # proposals of a sampler that are all known
_DRAWS = 2_000  # at random, that are all known before a space counts as exhausted
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study, and its values of the space's parameters."""

    number: int
    values: Values


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``complete``, ``pruned`` or ``failed``; of a row also ``running``.
        figures: objective -> value, of a complete one.
        reason: why it failed.
        iterations: outer iterations that it trained.
        seconds: that it trained, of its last life where it had several.
    """

    state: State
    figures: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    iterations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrialRow(Outcome):
    """One trial as the study has it.

    Attributes:
        number: 0, 1, ...
        values: of the space's parameters.
        curve: iteration -> best validation mAP until then.
        started: None where it has not begun.
        ended: None where it has not ended.
    """

    number: int = 0
    values: Values = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None


class Search:
    """The study of a directory, made if there is none.

    One process at a time has it; the directory's lock sees to that.

    Args:
        path: the search's directory.
        space: checked.
        base: what the trials have in common.
        seed: of the sampler.
    """

    def __init__(self, path: Path, space: Space, base: TrainConfig, seed: int = 0) -> None:
        self.space, self.base, self.seed = space, base, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not (path / STUDY).is_file():
            _create(path, space, base)
        self._storage = _storage(path / STUDY)
        self.study = optuna.load_study(
            study_name=STUDY_NAME,
            storage=self._storage,
            sampler=RandomSampler(),
            pruner=_pruner(space),
        )
        self._trials: dict[int, Trial] = {}
        self.exhausted = False  # no settings are left that were not tried

    def unfinished(self) -> list[Proposal]:
        """Return the trials that began and did not end: they are run first."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        proposals = [self._filled(self._resumed(frozen)) for frozen in running]
        return [proposal for proposal in proposals if not self._is_repeated(proposal)]

    def begun(self) -> int:
        """Count the trials that began, ended or not."""
        return len(self.rows())

    def ended(self) -> int:
        """Count the trials that ended, in whatever way."""
        return sum(row.state != "running" for row in self.rows())

    def propose(self) -> Proposal | None:
        """Ask the sampler for a new trial; None where the space has no settings left to try.

        A sampler that likes what it knows proposes that again where settings are few and whole;
        after some tries, settings that nobody tried are drawn at random.
        """
        for _ in range(_TRIES):
            number = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = _sampler(self.space, self.seed, number)
            proposal = self._filled(self.study.ask())
            if not self._is_repeated(proposal):
                return proposal
        untried = self._untried()
        if untried is None:
            self.exhausted = True
            return None
        self.study.enqueue_trial({key: _stored(value) for key, value in untried.items()})
        return self._filled(self.study.ask())

    def _untried(self) -> Values | None:
        tried = {json.dumps(row.values) for row in self.rows() if row.state != "failed"}
        generator = random.Random(f"{self.seed} {len(tried)} untried")
        for _ in range(_DRAWS):
            values: Values = {}
            for key, domain in self.space.parameters.items():
                if domain.active(values):
                    values[key] = domain.draw(generator)
            if json.dumps(values) not in tried:
                return values
        return None

    def heard(self, number: int, iteration: int, score: float) -> bool:
        """Record the best validation mAP after an iteration; tell whether to stop the trial.

        The first trial is never stopped, since all others are compared with it, and none after
        its last iteration. What was told before is not judged again.
        """
        if self.space.several:
            return False  # Optuna keeps no curves where there are several objectives
        trial = self._trials[number]
        last = self.study.get_trials(deepcopy=False)[number].last_step
        if last is not None and iteration <= last:
            return False
        trial.report(score, iteration)
        # asked of every trial, as it also enters the trial's score at its rung
        hopeless = trial.should_prune()
        return hopeless and number != 0 and iteration < self._iterations(number)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Record how a trial ended; the first time counts.

        A complete one with a figure that is not a number is recorded as failed.
        """
        trial = self._trials[number]
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        if outcome.state == "complete":
            outcome = _with_finite_figures(outcome, self.space.objectives)
        attributes: dict[str, Any] = {
            _ITERATIONS: outcome.iterations,
            _SECONDS: round(outcome.seconds, 3),
        }
        if outcome.figures:
            attributes[_FIGURES] = outcome.figures
        if outcome.reason:
            attributes[_REASON] = outcome.reason
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        self._tell(number, outcome)

    def rows(self) -> list[TrialRow]:
        """Return all trials that began; repeated proposals, which nobody ran, are left out."""
        frozen = self.study.get_trials(deepcopy=False)
        return [
            _row(t)
            for t in frozen
            if t.state != TrialState.WAITING and _REPEATED not in t.user_attrs
        ]

    def sat(self, sitting: int | None, seconds: float, slots: int) -> int:
        """Record for how long a search has run since its command was given; return its sitting."""
        sittings: list[dict[str, float]] = list(self.study.user_attrs.get(_SITTINGS, []))
        if sitting is None:
            sitting = len(sittings)
            sittings.append({})
        sittings[sitting] = {"seconds": round(seconds, 1), "slots": slots}
        self.study.set_user_attr(_SITTINGS, sittings)
        return sitting

    def sittings(self) -> list[dict[str, float]]:
        """Return ``seconds`` and ``slots`` (trials at once) of each time that the search ran."""
        return list(self.study.user_attrs.get(_SITTINGS, []))

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _resumed(self, frozen: FrozenTrial) -> Trial:
        # what was drawn comes back as it was; only what was not yet drawn depends on the sampler
        self.study.sampler = _sampler(self.space, self.seed, frozen.number)
        return Trial(self.study, frozen._trial_id)

    def _filled(self, trial: Trial) -> Proposal:
        self._trials[trial.number] = trial
        values: Values = {}
        for key, domain in self.space.parameters.items():
            if domain.active(values):
                values[key] = _drawn(trial, key, domain)
        trial.set_user_attr(_SETTINGS, values)
        return Proposal(trial.number, values)

    def _is_repeated(self, proposal: Proposal) -> bool:
        """Tell whether an earlier trial has these settings; it would end the same to the bit."""
        wanted = json.dumps(proposal.values)
        earlier = (r for r in self.rows() if r.number < proposal.number and r.state != "failed")
        twin = next((row.number for row in earlier if json.dumps(row.values) == wanted), None)
        if twin is None:
            return False
        # Optuna has no way to take a proposal back
        self._trials[proposal.number].set_user_attr(_REPEATED, twin)
        self._tell(proposal.number, Outcome("failed"))
        return True

    def _iterations(self, number: int) -> int:
        values: Values = self.study.get_trials(deepcopy=False)[number].user_attrs[_SETTINGS]
        return int(values.get("schedule.iterations", self.base.schedule.iterations))

    def _tell(self, number: int, outcome: Outcome) -> None:
        state = next(key for key, name in _STATES.items() if name == outcome.state)
        values = (
            [outcome.figures[name] for name in self.space.objectives]
            if outcome.state == "complete"
            else None
        )
        self.study.tell(number, values, state=state, skip_if_finished=True)


def front(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TrialRow]:
    """Return the complete trials that no other is better than in every objective.

    With one objective: the best one. Of equal trials the first counts. Ordered by number.
    """
    complete = [row for row in rows if row.state == "complete"]
    points = {row.number: _upwards(row, objectives) for row in complete}

    def beaten(row: TrialRow) -> bool:
        mine = points[row.number]
        return any(
            all(a >= b for a, b in zip(other, mine, strict=True))
            and (other != mine or number < row.number)
            for number, other in points.items()
            if number != row.number
        )

    return [row for row in complete if not beaten(row)]


def ranked(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the complete trials, best validation mAP first."""
    complete = [row for row in rows if row.state == "complete"]
    return sorted(complete, key=lambda row: (-row.figures[VALIDATION_MAP], row.number))


def _upwards(row: TrialRow, objectives: Sequence[str]) -> tuple[float, ...]:
    return tuple(OBJECTIVES[name].sign * row.figures[name] for name in objectives)


def _create(path: Path, space: Space, base: TrainConfig) -> None:
    """Write the study with its starting points; it appears whole or not at all."""
    beside = path / f"{STUDY}.partial"
    beside.unlink(missing_ok=True)
    storage = _storage(beside)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=storage,
        directions=[OBJECTIVES[name].direction for name in space.objectives],
    )
    with _quiet():
        study.set_metric_names([OBJECTIVES[name].title for name in space.objectives])
    for number in range(len(space.start)):
        point = starting_point(space, base, number)
        study.enqueue_trial({key: _stored(value) for key, value in point.items()})
    storage.remove_session()
    storage.engine.dispose()
    beside.rename(path / STUDY)


def _storage(path: Path) -> RDBStorage:
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})


def _pruner(space: Space) -> BasePruner:
    if space.pruning is None:
        return NopPruner()
    return SuccessiveHalvingPruner(
        min_resource=space.pruning.grace, reduction_factor=space.pruning.factor
    )


def _sampler(space: Space, seed: int, number: int) -> BaseSampler:
    # a sampler with the same seed would draw the same again after every start of the search
    own = random.Random(f"{seed} {number}").getrandbits(32)
    with _quiet():
        if space.sampler == "random":
            return RandomSampler(seed=own)
        if space.sampler == "nsga2":
            return NSGAIISampler(seed=own)
        # conditional settings are drawn together with those they depend on
        return TPESampler(seed=own, multivariate=True, group=True)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _drawn(trial: Trial, key: str, domain: Domain) -> Any:
    if domain.choices is not None:
        stored = trial.suggest_categorical(key, [_stored(choice) for choice in domain.choices])
        return next(c for c in domain.choices if _stored(c) == stored)
    low, high = domain.ends
    if domain.integer is not None:
        return trial.suggest_int(key, low, high, step=domain.step)
    return trial.suggest_float(key, low, high, log=domain.log is not None)


def _stored(value: Any) -> Any:
    """Return a value as Optuna can store it: lists as text."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _with_finite_figures(outcome: Outcome, objectives: Sequence[str]) -> Outcome:
    for name in objectives:
        value = outcome.figures.get(name)
        if value is None or value != value or abs(value) == float("inf"):
            reason = f"{OBJECTIVES[name].title} is {value}, not a number"
            return Outcome("failed", {}, reason, outcome.iterations, outcome.seconds)
    return outcome


def _row(trial: FrozenTrial) -> TrialRow:
    attributes = trial.user_attrs
    return TrialRow(
        state=_STATES[trial.state],
        figures=dict(attributes.get(_FIGURES, {})),
        reason=attributes.get(_REASON, ""),
        iterations=attributes.get(_ITERATIONS, trial.last_step or 0),
        seconds=attributes.get(_SECONDS, 0.0),
        number=trial.number,
        values=dict(attributes.get(_SETTINGS, {})),
        curve=dict(trial.intermediate_values),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )
