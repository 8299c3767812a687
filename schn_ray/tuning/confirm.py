"""Is the winner of a search really better, or was it lucky?

The best of many trials is partly the luckiest one, so its figure is too good. Three steps correct
for that. First, trials that came close to the best are trained again with other seeds, and the one
with the best mean is the winner. Second, the winner and the first trial are trained with seeds
that no step has used; the gain is the mean of their differences, seed by seed, with an interval.
A search that chose among methods compares the best trials of the best methods, and at the end the
winner with the best of another method, too. Last, once nothing is left to choose, the same models
are evaluated on the test queries.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from schn_ray.core.storage.files import join
from schn_ray.tuning.method_ranking import best_of_methods
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.rows import TrialRow, ranked
from schn_ray.tuning.space import Space
from schn_ray.tuning.trial import TrialDir
from schn_ray.tuning.trial_queue import Job
from schn_ray.tuning.trial_settings import TrialSettings

CONFIRM, CONFIRMED = "confirm", "confirmed.json"
BASELINE = 0  # number of the trial that the winner must beat: the settings without a search
_MAX_CANDIDATES = 3
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """The mean difference of pairs, with its 95 % confidence interval (Student's t, paired).

    Attributes:
        baseline: mean of the baseline.
        winner: mean of the winner.
        mean: mean of winner less baseline.
        low: lower bound of the interval.
        high: upper bound of the interval.
        pairs: how many pairs.
    """

    baseline: float
    winner: float
    mean: float
    low: float
    high: float
    pairs: int

    @property
    def is_significant(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"{self.baseline:.4f} -> {self.winner:.4f}, gain {self.mean:+.4f} "
            f"(95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.pairs} seeds)"
        )


@dataclass(frozen=True)
class RunnerUp:
    """The best trial of another method than the winner's, and the winner's gain over it.

    Attributes:
        trial: its number.
        method: its name.
        validation: gain of the winner in validation mAP, with the runner-up as the baseline; None
            if fewer than two seeds succeeded for both.
        queries: the same in mAP of the test queries; None also where the store has no queries.
    """

    trial: int
    method: str
    validation: Gain | None = None
    queries: Gain | None = None


@dataclass(frozen=True)
class Confirmation:
    """The results of training with seeds that the search did not use.

    Attributes:
        winner: number of the trial.
        candidates: number of a trial -> its mean validation mAP over the deciding seeds; empty if
            there was no other candidate.
        validation: gain of the winner over the first trial in validation mAP; None if the winner is
            the first trial, or fewer than two seeds succeeded for both.
        queries: the same in mAP of the test queries; None also where the store has no queries.
        runner_up: the best of another method; None where the search has one method only.
    """

    winner: int
    candidates: dict[int, float]
    validation: Gain | None = None
    queries: Gain | None = None
    runner_up: RunnerUp | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)


def gain(baseline: Sequence[float], winner: Sequence[float]) -> Gain | None:
    """Return the gain of pairs, with its interval; None of fewer than two pairs.

    With d the differences, n of them, the interval is mean(d) +- t(0.975, n - 1) * sd(d) / sqrt(n).

    Args:
        baseline: a figure for each seed.
        winner: the same for the same seeds.

    >>> print(gain([0.50, 0.51, 0.50], [0.60, 0.60, 0.61]))
    0.5033 -> 0.6033, gain +0.1000 (95 % interval +0.0752 to +0.1248, 3 seeds)
    """
    if len(baseline) < 2:
        return None
    differences = [b - a for a, b in zip(baseline, winner, strict=True)]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half_width = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(differences) - 1))
    return Gain(
        statistics.fmean(baseline),
        statistics.fmean(winner),
        mean,
        mean - half_width,
        mean + half_width,
        len(differences),
    )


def candidates(rows: Sequence[TrialRow], space: Space) -> list[TrialRow]:
    """Return the best trial and up to two others, the best first.

    Where the space chooses among methods, they are the best trials of the best methods, so that the
    methods are compared. Else they are trials that came close to the best.

    Args:
        rows: the trials; at least one is complete.
        space: says how close.
    """
    if space.methods:
        return best_of_methods(rows)[:_MAX_CANDIDATES]
    best_first = ranked(rows)
    bound = best_first[0].figures[VALIDATION_MAP] - space.close
    near = [row for row in best_first if row.figures[VALIDATION_MAP] >= bound]
    return near[:_MAX_CANDIDATES]


def deciding_seeds(base: TrialSettings, repeats: int) -> range:
    """Return the seeds that choose among the candidates: the search did not use them.

    Args:
        base: its seed is the one that the search used.
        repeats: how many.
    """
    return range(base.seed + 1, base.seed + 1 + repeats)


def judging_seeds(base: TrialSettings, repeats: int) -> range:
    """Return the seeds that measure the gain: neither the search nor the choice used them.

    Args:
        base: its seed is the one that the search used.
        repeats: how many.
    """
    return range(base.seed + 1 + repeats, base.seed + 1 + 2 * repeats)


def jobs(out: str, base: TrialSettings, rows: Sequence[TrialRow], seeds: range) -> list[Job]:
    """Return a training for each seed and trial; its directory is named after both.

    A job that was trained in an earlier session is thus recognised.

    Args:
        out: the search's directory, or its URI.
        base: what the trials have in common.
        rows: the trials.
        seeds: all trials are trained with the first seed, then with the second, and so on.
    """
    queue: list[Job] = []
    for seed in seeds:
        for row in rows:
            config = base.config(row.values).model_copy(update={"seed": seed})
            directory = TrialDir(join(out, f"{CONFIRM}/{row.number:04}-seed-{seed}"))
            queue.append(Job(len(queue), config, directory))
    return queue


def winner_of(means: Mapping[int, float]) -> int:
    """Return the number of the trial with the best mean; the lowest of those with equal means.

    Args:
        means: number of a trial -> its mean validation mAP.
    """
    return min(means, key=lambda number: (-means[number], number))


def needs_confirming(space: Space, rows: Sequence[TrialRow], repeats: int) -> bool:
    """Tell whether there is a winner, and confirmation was requested.

    Args:
        space: with more than one objective there is no winner.
        rows: the trials.
        repeats: seeds for each step of the confirmation; 0: none.
    """
    return repeats > 0 and not space.multi_objective and bool(ranked(rows))
