"""The trials of a study as rows: read from what Optuna and the search recorded of each."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from schn_ray.tuning.rows import State, TrialRow
from schn_ray.tuning.study_file import FIGURES, KNOWN, SETTINGS, load_study

# names of a trial's attributes on disk
REASON, SECONDS, ITERATIONS, REPEATED = "reason", "seconds", "iterations", "repeats"
REPORTS = "reports"  # where Optuna records none: iterations and scores
STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def rows_of_study(path: Path) -> list[TrialRow]:
    """Return the trials of the search in a directory.

    Args:
        path: of the directory.

    Raises:
        SchnRayError: the study is damaged.
    """
    return rows_of(load_study(path))


def is_own(trial: FrozenTrial) -> bool:
    """Tell whether a trial is the search's own, and not known of an earlier one.

    Args:
        trial: of the study.
    """
    return KNOWN not in trial.user_attrs


def rows_of(study: optuna.Study) -> list[TrialRow]:
    """Return the search's own trials that have begun; repeated proposals are none.

    Args:
        study: of the search.
    """
    own = [t for t in study.get_trials(deepcopy=False) if is_own(t)]
    started = [t for t in own if t.state != TrialState.WAITING]
    return [_row(trial) for trial in started if REPEATED not in trial.user_attrs]


def _row(trial: FrozenTrial) -> TrialRow:
    attributes = trial.user_attrs
    return TrialRow(
        state="infeasible" if is_outside(trial) else STATES[trial.state],
        figures=dict(attributes.get(FIGURES, {})),
        reason=attributes.get(REASON, ""),
        iterations=attributes.get(ITERATIONS, trial.last_step or 0),
        seconds=attributes.get(SECONDS, 0.0),
        number=trial.number,
        values=dict(attributes.get(SETTINGS, {})),
        curve=curve_of(trial),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """Return the scores of a trial, by iteration.

    Args:
        trial: of the study.
    """
    reports = trial.user_attrs.get(REPORTS, [])
    return dict(trial.intermediate_values) or {at: score for at, score, *_ in reports}


def is_outside(trial: FrozenTrial) -> bool:
    """Tell whether a trial has ended and breaks a constraint.

    Args:
        trial: of the study.
    """
    return trial.state.is_finished() and any(excess > 0 for excess in trial.constraints.values())


def was_refused(trial: FrozenTrial) -> bool:
    """Tell whether a proposal was not trained: another trial has it, or a constraint forbids it.

    Args:
        trial: of the study.
    """
    untrained = is_outside(trial) and trial.state == TrialState.PRUNED
    return untrained or REPEATED in trial.user_attrs
