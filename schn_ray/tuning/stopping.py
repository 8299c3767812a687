"""When a search ends before it has all its trials: nothing was gained lately, or time is over.

Optuna's terminators are deprecated (since 4.9), and those with a regret bound (Makarova et al.,
AutoML 2022) know one objective only and need the error of a cross-validation. The rule here is
one that can be read off the table of trials, with one objective or more: see ``gains_nothing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schn_ray.core.errors import SchnRayError
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.rows import TrialRow, maximised

_LEAST_TRIALS = 5  # with fewer, that nothing was gained is chance


@dataclass(frozen=True)
class StoppingRule:
    """When no more trials begin; those that began are trained to their end.

    Attributes:
        no_gain: that many trials in a row gain nothing; None: they need not gain.
        hours: for which the search has run, all calls together; None: no limit.
    """

    no_gain: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        if self.no_gain is not None and self.no_gain < _LEAST_TRIALS:
            raise SchnRayError(
                f"--until-no-gain {self.no_gain}: so few trials without a gain are chance; use "
                f"{_LEAST_TRIALS} or more, such as 20"
            )
        if self.hours is not None and not 0 < self.hours < float("inf"):
            raise SchnRayError(f"--max-hours {self.hours}: expected a number above 0")

    def reason(
        self, rows: Sequence[TrialRow], objectives: Sequence[str], close: float, seconds: float
    ) -> str:
        """Say why no more trials begin; "" if they do.

        Args:
            rows: of the search.
            objectives: of the search.
            close: see ``gains_nothing``.
            seconds: for which the search has run.
        """
        if self.hours is not None and seconds >= self.hours * 3600:
            return f"{self.hours:g} hours are over"
        if self.no_gain is not None and gains_nothing(rows, objectives, close, self.no_gain):
            return f"the last {self.no_gain} trials gained nothing beyond {close:g}"
        return ""


def gains_nothing(
    rows: Sequence[TrialRow], objectives: Sequence[str], close: float, last: int
) -> bool:
    """Tell whether the trials that ended last gained nothing on those before them.

    A trial gains if no trial before the ``last`` ones is as good in every objective, validation mAP
    up to ``close``: differences so small are those of seeds. Trials that were stopped, failed or
    break a constraint gain nothing.

    Args:
        rows: of the search.
        objectives: names; with one, the best of the last trials is compared with the best before.
        close: in validation mAP.
        last: how many trials.

    Example:
        >>> from datetime import datetime
        >>> scores = [0.5, 0.6, 0.605, 0.58]
        >>> rows = [
        ...     TrialRow("complete", {"validation_map": s}, number=n, ended=datetime(2026, 1, 1))
        ...     for n, s in enumerate(scores)
        ... ]
        >>> gains_nothing(rows, ["validation_map"], 0.01, 2)
        True
        >>> gains_nothing(rows, ["validation_map"], 0.001, 2)
        False
    """
    ended = [row for row in rows if row.is_counted and row.ended is not None]
    ended.sort(key=lambda row: (row.ended, row.number))
    if len(ended) <= last:
        return False
    before = [maximised(r.figures, objectives) for r in ended[:-last] if r.state == "complete"]
    for row in ended[-last:]:
        if row.state == "complete":
            lowered = row.figures | {VALIDATION_MAP: row.figures[VALIDATION_MAP] - close}
            point = maximised(lowered, objectives)
            if not any(all(a >= b for a, b in zip(e, point, strict=True)) for e in before):
                return False
    return True
