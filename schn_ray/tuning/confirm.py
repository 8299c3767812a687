"""Whether the winner of a search wins by more than luck.

The best of many trials is partly the luckiest one: its figure flatters. So trials that came close
to it are trained again with other seeds, and the best of those in the mean is the winner. Then
winner and first trial are trained with seeds that decided nothing, a pair a seed, and the gain is
the mean difference of the pairs with its interval. Test queries are looked at last, when nothing
is left to choose.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from schn_ray.core.storage.files import join
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.space import Space, with_values
from schn_ray.tuning.study import TrialRow, ranked
from schn_ray.tuning.trial import TrialDir
from schn_ray.tuning.trial_queue import Job

CONFIRM, CONFIRMED = "confirm", "confirmed.json"
BASELINE = 0  # the trial that the winner must beat: the first, without a search
_MOST_CANDIDATES = 3
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """Differences of pairs: mean, and the bounds of its 95 % interval (Student's t).

    Attributes:
        baseline: mean of the baseline.
        winner: mean of the winner.
        pairs: how many there are.
    """

    baseline: float
    winner: float
    mean: float
    low: float
    high: float
    pairs: int

    @property
    def is_one(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"{self.baseline:.4f} -> {self.winner:.4f}, gain {self.mean:+.4f} "
            f"(95 % interval {self.low:+.4f} to {self.high:+.4f}, {self.pairs} seeds)"
        )


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds said.

    Attributes:
        winner: number of the trial.
        candidates: number -> mean validation mAP over the deciding seeds; empty where no other
            trial came close.
        validation: of the winner over the first trial; None where the winner is the first trial,
            or too few runs succeeded.
        queries: the same on the test queries, of the same runs; None also where the split has
            none.
    """

    winner: int
    candidates: dict[int, float]
    validation: Gain | None = None
    queries: Gain | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def gain(baseline: Sequence[float], winner: Sequence[float]) -> Gain | None:
    """Return the gain of pairs; None of fewer than two, which have no interval."""
    if len(baseline) < 2:
        return None
    differences = [b - a for a, b in zip(baseline, winner, strict=True)]
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    reach = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(differences) - 1))
    return Gain(
        statistics.fmean(baseline),
        statistics.fmean(winner),
        mean,
        mean - reach,
        mean + reach,
        len(differences),
    )


def candidates(rows: Sequence[TrialRow], close: float) -> list[TrialRow]:
    """Return the best trial and up to two others whose validation mAP is ``close`` to it."""
    best = ranked(rows)
    near = [r for r in best if r.figures[VALIDATION_MAP] >= best[0].figures[VALIDATION_MAP] - close]
    return near[:_MOST_CANDIDATES]


def deciding_seeds(base: TrainConfig, repeats: int) -> range:
    """Return the seeds that choose among candidates: none that the search used."""
    return range(base.seed + 1, base.seed + 1 + repeats)


def judging_seeds(base: TrainConfig, repeats: int) -> range:
    """Return the seeds that measure the gain: none that chose."""
    return range(base.seed + 1 + repeats, base.seed + 1 + 2 * repeats)


def jobs(out: str, base: TrainConfig, rows: Sequence[TrialRow], seeds: range) -> list[Job]:
    """Return a job a trial and seed; its place says which, so that it is done once."""
    found: list[Job] = []
    for seed in seeds:
        for row in rows:
            config = with_values(base, row.values).model_copy(update={"seed": seed})
            place = TrialDir(join(out, f"{CONFIRM}/{row.number:04}-seed-{seed}"))
            found.append(Job(len(found), config, place))
    return found


def winner_of(means: Mapping[int, float]) -> int:
    """Return the trial with the best mean; of equal ones the first."""
    return min(means, key=lambda number: (-means[number], number))


def needs_confirming(space: Space, rows: Sequence[TrialRow], repeats: int) -> bool:
    """Tell whether there is a winner to be confirmed."""
    return repeats > 0 and not space.several and bool(ranked(rows))
