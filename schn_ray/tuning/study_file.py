"""The study of a search on disk: made with its starting points, loaded, and its trials' names.

``study.jsonl`` is an Optuna journal, see ``journal``; ``study`` works with it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from schn_ray.core.atomic_files import writing
from schn_ray.core.errors import SchnRayError
from schn_ray.tuning.journal import CheckedJournal
from schn_ray.tuning.objectives import OBJECTIVES
from schn_ray.tuning.rows import TrialRow, ranked
from schn_ray.tuning.space import Domain, Space, starting_point
from schn_ray.tuning.trial_settings import TrialSettings

STUDY, STUDY_NAME = "study.jsonl", "schn-ray"
# attributes of a trial: its settings and figures, and of an earlier search's its number there
SETTINGS, FIGURES, KNOWN = "settings", "figures", "known"
_STARTS = "starts"  # the last that is written of a new study


def load_study(path: Path) -> optuna.Study:
    """Load the study of a directory.

    Args:
        path: of the directory.

    Raises:
        SchnRayError: it is damaged.
    """
    try:
        study = optuna.load_study(
            study_name=STUDY_NAME,
            storage=JournalStorage(CheckedJournal(path / STUDY)),
            sampler=RandomSampler(),
        )
    except KeyError as error:
        raise _cut(path) from error
    if _STARTS not in study.user_attrs:
        raise _cut(path)
    return study


def create_study(path: Path, space: Space, base: TrialSettings, known: Sequence[TrialRow]) -> None:
    """Write the study with its starting points; the file appears complete or not at all.

    The best of the known settings come next, since they have no figure in this search yet.

    Args:
        path: of the directory.
        space: of the search.
        base: what the trials have in common.
        known: trials of an earlier search, with values of this space.
    """
    partial_path = path / f"{STUDY}.partial"
    partial_path.unlink(missing_ok=True)
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=JournalStorage(CheckedJournal(partial_path)),
        directions=[OBJECTIVES[name].direction for name in space.objectives],
    )
    with without_experimental_warnings():
        study.set_metric_names([OBJECTIVES[name].title for name in space.objectives])
    points = [starting_point(space, base, number) for number in range(len(space.start))]
    for point in (*points, *(row.values for row in ranked(known)[:1])):
        study.enqueue_trial({key: stored(value) for key, value in point.items()})
    study.add_trials(_known_trial(row, space) for row in known)
    study.set_user_attr(_STARTS, len(space.start))
    with writing(path / STUDY):
        partial_path.rename(path / STUDY)


def _known_trial(row: TrialRow, space: Space) -> FrozenTrial:
    complete = all(name in row.figures for name in space.measured)
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        values=[row.figures[name] for name in space.objectives] if complete else None,
        params={key: stored(value) for key, value in row.values.items()},
        distributions={key: _distribution(space.parameters[key]) for key in row.values},
        intermediate_values={} if space.multi_objective else row.curve,
        constraints={c.figure: c.excess(row.figures[c.figure]) for c in space.limits if complete},
        user_attrs={KNOWN: row.number, SETTINGS: row.values, FIGURES: row.figures},
    )


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.choices is not None:
        return CategoricalDistribution([stored(choice) for choice in domain.choices])
    low, high = domain.ends
    if domain.integer is not None:
        return IntDistribution(low, high, step=domain.step)
    return FloatDistribution(low, high, log=domain.log is not None)


def _cut(path: Path) -> SchnRayError:
    return SchnRayError(
        f"{path / STUDY} is damaged: its beginning is missing. Put a copy of the file there, or "
        "remove the search and run the same command again"
    )


def stored(value: Any) -> Any:
    """Return a value as Optuna can store it: lists as text.

    Args:
        value: of a parameter.
    """
    return json.dumps(value) if isinstance(value, list | tuple) else value


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Silence Optuna's word on functions that may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
