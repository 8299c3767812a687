"""The rows of a search: what was proposed, how it ended, and which rows are best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from schn_ray.tuning.halving import Point, dominates
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.trial_settings import Values

State = Literal["running", "complete", "pruned", "failed", "infeasible"]


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study, and the values of the space's parameters."""

    number: int
    values: Values


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``complete``, ``pruned`` or ``failed``; a row may also be ``running``. A trial that
            breaks a constraint is ``infeasible``, trained or not.
        figures: name -> value, of a complete trial; of one that was not trained, those known.
        reason: why it failed, or what it breaks.
        iterations: outer iterations that it trained.
        seconds: that it trained; after an interruption, only those since then.
    """

    state: State
    figures: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    iterations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrialRow(Outcome):
    """One trial, as the study has it.

    Attributes:
        number: 0, 1, ...
        values: of the space's parameters.
        curve: iteration -> best validation mAP until then.
        started: None if it has not started.
        ended: None if it has not ended.
    """

    number: int = 0
    values: Values = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def is_counted(self) -> bool:
        """Whether it is one of the trials of the search: one that was refused untrained is not."""
        return self.state != "infeasible" or VALIDATION_MAP in self.figures

    def score_at(self, rung: int) -> float | None:
        """Return the score with which it came to a rung; None if it has not come so far.

        Args:
            rung: an iteration. Where not every iteration is validated, the next that is counts.

        >>> TrialRow("pruned", curve={2: 0.5, 4: 0.6}).score_at(3)
        0.6
        """
        return next((self.curve[at] for at in sorted(self.curve) if at >= rung), None)


def front(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[TrialRow]:
    """Return the Pareto front: the complete trials that no other trial dominates, by number.

    A trial dominates another if it is at least as good in every objective and better in one. Of
    equal trials only the first is returned. With one objective, the front is the best trial.

    Args:
        rows: the trials.
        objectives: names of objectives.
    """
    complete = [row for row in rows if row.state == "complete"]
    points = {row.number: maximised(row.figures, objectives) for row in complete}

    def beaten(row: TrialRow) -> bool:
        point = points[row.number]
        return any(
            dominates(other, point) or (other == point and number < row.number)
            for number, other in points.items()
        )

    return [row for row in complete if not beaten(row)]


def ranked(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the complete trials, best validation mAP first; equal ones by number.

    Args:
        rows: the trials.
    """
    complete = [row for row in rows if row.state == "complete"]
    return sorted(complete, key=lambda row: (-row.figures[VALIDATION_MAP], row.number))


def maximised(figures: Mapping[str, float], objectives: Sequence[str]) -> Point:
    """Return a trial's figures with signs such that more is better.

    Args:
        figures: by the names of objectives.
        objectives: names of those that count.
    """
    return tuple(OBJECTIVES[name].sign * figures[name] for name in objectives)
