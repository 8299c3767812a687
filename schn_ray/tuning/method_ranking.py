"""Which method a search likes best, where it chose among several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.rows import TrialRow, ranked
from schn_ray.tuning.trial_settings import METHOD_NAME


def best_of_methods(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the best trial of each method, the best first.

    Args:
        rows: the trials; only complete ones count.
    """
    best: dict[str, TrialRow] = {}
    for row in ranked(rows):
        best.setdefault(row.values[METHOD_NAME], row)
    return list(best.values())


def ranking_text(rows: Sequence[TrialRow]) -> str:
    """Return each method's best validation mAP and its number of trials, as a line.

    Args:
        rows: the trials; of those that began, all are counted.

    Returns:
        Such as ``csq 0.6142 (31 trials), itq 0.3045 (4 trials)``.
    """
    trials = Counter(row.values[METHOD_NAME] for row in rows)
    best = {row.values[METHOD_NAME]: row.figures[VALIDATION_MAP] for row in best_of_methods(rows)}
    scored = [f"{name} {score:.4f} ({_counted(trials[name])})" for name, score in best.items()]
    without = [f"{name} - ({_counted(trials[name])})" for name in trials if name not in best]
    return ", ".join(scored + without)


def _counted(trials: int) -> str:
    return f"{trials} trial" + ("s" if trials != 1 else "")
