"""The trials of a search, in an Optuna study on disk. It is all that a search has to remember.

The process that runs the trials gets each new trial from ``Search``, and reports to it the score
after each iteration and the outcome. The study is in ``study.jsonl`` (see ``journal``), and every
step is written before anything is done about it, so that a search that is killed at any moment can
continue. A trial that had started is proposed again with its number and settings, and the scores
that it reported are known. Which settings come next depends on the seed, the trial's number and the
earlier trials, not on how often the search was interrupted.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from schn_ray.core.errors import SchnRayError
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.constraints import broken
from schn_ray.tuning.halving import Point, is_hopeless
from schn_ray.tuning.objectives import BITS, ENCODING_COST, OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.rows import Outcome, Proposal, TrialRow, maximised
from schn_ray.tuning.space import Domain, Space
from schn_ray.tuning.study_file import (
    FIGURES,
    SETTINGS,
    STUDY,
    create_study,
    load_study,
    stored,
    without_experimental_warnings,
)
from schn_ray.tuning.study_rows import (
    ITERATIONS,
    REASON,
    REPEATED,
    REPORTS,
    SECONDS,
    STATES,
    curve_of,
    is_own,
    rows_of,
    was_refused,
)
from schn_ray.tuning.trial_settings import METHOD_NAME, TrialSettings, Values

_SESSIONS = "sittings"  # name of an attribute of the study on disk
_STOPPED = "stopped"  # the iteration after which a trial is to be stopped
_SAMPLER_TRIES = 5  # for settings that no trial has, before they are drawn at random
_RANDOM_DRAWS = 2_000  # of settings that all have been tried, before a space counts as exhausted


class Search:
    """The study in a directory; it is created if there is none.

    Only one process at a time may use it; the directory's lock ensures that.

    Args:
        path: the search's directory.
        space: checked by ``check_space``.
        base: what the trials have in common.
        seed: of the sampler.
        cost: the encoding cost of a model with these settings; for a figure that needs it.
        known: trials of an earlier search, with values of this space: a new study begins with them.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        base: TrialSettings,
        seed: int = 0,
        cost: Callable[[TrainConfig], float] | None = None,
        known: Sequence[TrialRow] = (),
    ) -> None:
        self.space, self.base, self.seed, self._cost = space, base, seed, cost
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not (path / STUDY).is_file():
            create_study(path, space, base, known)
        self.study = load_study(path)
        self._trials: dict[int, Trial] = {}
        self._spent: set[str] = set()  # methods that have no settings left
        self.exhausted = False  # whether random draws no longer hit settings that are untried

    def unfinished(self) -> list[Proposal]:
        """Return the trials that started and did not end; they are run first."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # values that were drawn are read from the study; the sampler draws only the missing ones
        proposals = [self._filled(Trial(self.study, frozen._trial_id)) for frozen in running]
        return [proposal for proposal in proposals if not self._is_refused(proposal)]

    def count_started(self) -> int:
        """Count the trials that started, ended or not."""
        return sum(row.is_counted for row in self.rows())

    def count_ended(self) -> int:
        """Count the trials that ended, stopped ones and failures included."""
        return sum(row.is_counted and row.state != "running" for row in self.rows())

    def propose(self) -> Proposal | None:
        """Return a new trial; None if the space seems to have no untried settings left.

        In a small space, a sampler tends to propose good settings again, or such as break a
        constraint that needs no training. If it proposed only those, others are drawn at random.
        Where it chooses among methods, each has its share first, see ``Space.each_method``.
        """
        while self._refused_last() < _SAMPLER_TRIES:
            if not self._waiting() and (method := self._due_method()) is not None:
                self.study.enqueue_trial({METHOD_NAME: method})
            proposal = self._filled(self.study.ask())
            if not self._is_refused(proposal):
                return proposal
        if not self._waiting():
            untried = self._untried(self._due_method())
            if untried is None:
                self.exhausted = True
                return None
            self.study.enqueue_trial({key: stored(value) for key, value in untried.items()})
        return self._filled(self.study.ask())

    def _waiting(self) -> list[FrozenTrial]:
        """Return the trials that are to begin next: starting points, and what a kill left."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    def _due_method(self) -> str | None:
        """Return the method with the fewest trials, if it has not had its share.

        Trials of an earlier search count. A method whose settings were all tried has had it.
        """
        counts = Counter(
            trial.user_attrs.get(SETTINGS, {}).get(METHOD_NAME)
            for trial in self.study.get_trials(deepcopy=False)
            if not was_refused(trial)
        )
        for name in sorted(self.space.methods, key=counts.__getitem__):
            if counts[name] >= self.space.each_method:
                return None
            if name not in self._spent:
                if self._untried(name) is not None:
                    return name
                self._spent.add(name)
        return None

    def _refused_last(self) -> int:
        """Count the proposals that were refused since the last trial: a kill forgets none."""
        newest_first = reversed(self.study.get_trials(deepcopy=False))
        return sum(1 for _ in itertools.takewhile(was_refused, newest_first))

    def _untried(self, method: str | None) -> Values | None:
        """Return settings that no trial has, of a method if given; None if there are none."""
        tried = {json.dumps(row.values) for row in self.rows() if row.state != "failed"}
        generator = random.Random(f"{self.seed} {len(tried)} untried")
        fixed = {} if method is None else {METHOD_NAME: method}
        for _ in range(_RANDOM_DRAWS):
            values: Values = {}
            for key, domain in self.space.parameters.items():
                if domain.active(values):
                    values[key] = fixed[key] if key in fixed else domain.draw(generator)
            if json.dumps(values) not in tried and not self._broken(values):
                return values
        return None

    def report_score(self, number: int, iteration: int, score: float) -> bool:
        """Record a trial's score after an iteration; tell whether to stop the trial.

        The first trial is never stopped, as all others are compared with it. No trial is stopped
        after its last iteration. What was answered once is answered again, also after a kill.

        Args:
            number: of the trial.
            iteration: 1, 2, ...
            score: best validation mAP until then.
        """
        if self._iterations(number) is None:
            return False  # a fit has rounds: it ends when it reports, and is in no curve
        frozen = self.study.get_trials(deepcopy=False)[number]
        reported, stopped = curve_of(frozen), frozen.user_attrs.get(_STOPPED)
        before = max(reported, default=0)
        if iteration <= before:
            return bool(iteration == stopped)
        hopeless = iteration == stopped or self._is_hopeless(number, before, iteration, score)
        if hopeless:  # before the score, as one that is known is not judged again
            self._trials[number].set_user_attr(_STOPPED, iteration)
        if self.space.multi_objective:
            reports = [*reported.items(), (iteration, score)]
            self._trials[number].set_user_attr(REPORTS, reports)
        else:
            self._trials[number].report(score, iteration)
        return hopeless

    def _is_hopeless(self, number: int, before: int, iteration: int, score: float) -> bool:
        pruning = self.space.pruning
        last = iteration >= (self._iterations(number) or 0)
        if pruning is None or number == 0 or last:
            return False
        rung = pruning.rung(iteration)
        if rung == pruning.rung(before):  # 0 where it has come to none
            return False
        rows = {row.number: row for row in self.rows()}
        own = self._point(rows.pop(number).values, score)
        others = ((row, row.score_at(rung)) for row in rows.values() if self._may_win(row))
        reached = [self._point(row.values, at) for row, at in others if at is not None]
        return is_hopeless(own, reached, pruning.factor)

    def _may_win(self, row: TrialRow) -> bool:
        """Tell whether a trial may be the best, or on the front; no other is compared with it."""
        best = max(row.curve.values(), default=0.0)  # which does not fall again
        return row.state not in ("failed", "infeasible") and not any(
            limit.figure == VALIDATION_MAP and limit.at_most and limit.excess(best) > 0
            for limit in self.space.limits
        )

    def _point(self, values: Values, score: float) -> Point:
        """Return a trial's figures with signs such that more is better; costs need no training."""
        figures = {VALIDATION_MAP: score} | self._costs(values)
        return maximised(figures, self.space.objectives)

    def _costs(self, values: Values) -> dict[str, float]:
        """Return the figures that are known before training."""
        config = self.base.config(values)
        figures = {BITS: float(config.bits)}
        if ENCODING_COST in self.space.measured:
            assert self._cost is not None, "a search with this figure is given it"
            figures[ENCODING_COST] = self._cost(config)
        return figures

    def _broken(self, values: Values) -> str:
        """Say which constraints settings break, whatever training will bring."""
        if all(limit.figure == VALIDATION_MAP for limit in self.space.limits):
            return ""
        try:
            return broken(self.space.limits, self._costs(values))
        except SchnRayError:  # that a config refuses is recorded by who trains it
            return ""

    def finish(self, number: int, outcome: Outcome) -> None:
        """Record how a trial ended; if that was recorded before, nothing changes.

        A complete trial with a figure that is not finite is recorded as failed.

        Args:
            number: of the trial.
            outcome: how it ended.
        """
        trial = self._trials[number]
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        if outcome.state == "complete":
            outcome = _with_finite_figures(outcome, self.space.measured)
        self._constrain(trial, outcome.figures)
        reason = outcome.reason or broken(self.space.limits, outcome.figures)
        attributes: dict[str, Any] = {
            ITERATIONS: outcome.iterations,
            SECONDS: round(outcome.seconds, 3),
        }
        if outcome.figures:
            attributes[FIGURES] = outcome.figures
        if reason:
            attributes[REASON] = reason
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        self._tell(number, outcome)

    def _constrain(self, trial: Trial, figures: Mapping[str, float]) -> None:
        for limit in self.space.limits:
            if limit.figure in figures and limit.figure not in trial.constraints:  # before a kill
                trial.set_constraint(limit.figure, limit.excess(figures[limit.figure]))

    def rows(self) -> list[TrialRow]:
        """Return all trials that started, without repeated proposals, which were not run."""
        return rows_of(self.study)

    def count_known(self) -> int:
        """Count the trials of an earlier search that the sampler knows."""
        return sum(not is_own(trial) for trial in self.study.get_trials(deepcopy=False))

    def record_session(self, session: int | None, seconds: float, slots: int) -> int:
        """Record for how long the current session has run.

        Args:
            session: its number; None for a new session.
            seconds: since the session began.
            slots: trials at once.

        Returns:
            The number of the session.
        """
        sessions = self.sessions()
        if session is None:
            session = len(sessions)
            sessions.append({})
        sessions[session] = {"seconds": round(seconds, 1), "slots": slots}
        self.study.set_user_attr(_SESSIONS, sessions)
        return session

    def sessions(self) -> list[dict[str, float]]:
        """Return ``seconds`` and ``slots`` (trials at once) of each session of the search."""
        return list(self.study.user_attrs.get(_SESSIONS, []))

    def seconds(self) -> float:
        """Return for how long the search has run, in all its sessions."""
        return sum(session["seconds"] for session in self.sessions())

    def _filled(self, trial: Trial) -> Proposal:
        self._trials[trial.number] = trial
        values: Values = {}
        for key, domain in self.space.parameters.items():
            if domain.active(values):
                # of its own seed: after a kill, some values are there and are not drawn again
                self.study.sampler = _sampler(self.space, self.seed, f"{trial.number} {key}")
                values[key] = _suggested(trial, key, domain)
        trial.set_user_attr(SETTINGS, values)
        return Proposal(trial.number, values)

    def _is_refused(self, proposal: Proposal) -> bool:
        """Tell whether a proposal is not worth a training, and record why."""
        return self._is_repeated(proposal) or self._is_infeasible(proposal)

    def _is_infeasible(self, proposal: Proposal) -> bool:
        if not (reason := self._broken(proposal.values)):
            return False
        costs = self._costs(proposal.values)
        self.finish(proposal.number, Outcome("infeasible", costs, f"not trained: {reason}"))
        return True

    def _is_repeated(self, proposal: Proposal) -> bool:
        """Tell whether an earlier trial has these settings; it would end the same to the bit."""
        settings = json.dumps(proposal.values)
        earlier = (r for r in self.rows() if r.number < proposal.number and r.state != "failed")
        original = next((row.number for row in earlier if json.dumps(row.values) == settings), None)
        if original is None:
            return False
        # Optuna cannot withdraw a proposal
        self._trials[proposal.number].set_user_attr(REPEATED, original)
        self._tell(proposal.number, Outcome("failed"))
        return True

    def _iterations(self, number: int) -> int | None:
        values: Values = self.study.get_trials(deepcopy=False)[number].user_attrs[SETTINGS]
        return self.base.iterations(values)

    def _tell(self, number: int, outcome: Outcome) -> None:
        # Optuna has no state of its own: a stopped trial that breaks a constraint
        name = "pruned" if outcome.state == "infeasible" else outcome.state
        state = next(key for key, value in STATES.items() if value == name)
        values = (
            [outcome.figures[name] for name in self.space.objectives]
            if outcome.state == "complete"
            else None
        )
        self.study.tell(number, values, state=state, skip_if_finished=True)


def _sampler(space: Space, seed: int, what: str) -> BaseSampler:
    # seeded for each trial: one seed would repeat its draws each time that the search is started
    trial_seed = random.Random(f"{seed} {what}").getrandbits(32)
    with without_experimental_warnings():
        if space.sampler == "random":
            return RandomSampler(seed=trial_seed)
        if space.sampler == "nsga2":
            return NSGAIISampler(seed=trial_seed)
        # group: conditional settings are drawn together with those that they depend on
        return TPESampler(seed=trial_seed, multivariate=True, group=True)


def _suggested(trial: Trial, key: str, domain: Domain) -> Any:
    if domain.choices is not None:
        suggested = trial.suggest_categorical(key, [stored(choice) for choice in domain.choices])
        return next(c for c in domain.choices if stored(c) == suggested)
    low, high = domain.ends
    if domain.integer is not None:
        return trial.suggest_int(key, low, high, step=domain.step)
    return trial.suggest_float(key, low, high, log=domain.log is not None)


def _with_finite_figures(outcome: Outcome, objectives: Sequence[str]) -> Outcome:
    for name in objectives:
        value = outcome.figures.get(name)
        if value is None or value != value or abs(value) == float("inf"):
            reason = f"{OBJECTIVES[name].title} is {value}, not a number"
            return Outcome("failed", {}, reason, outcome.iterations, outcome.seconds)
    return outcome
