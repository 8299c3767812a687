"""What a pruning would have saved, and lost: replayed on the curves of whole trials.

    python -m benchmarks.tuning.digits DIR --trials 30 --unpruned     # leaves the curves in DIR
    python -m benchmarks.tuning.pruning DIR

Two trials run at once, trial 0 is never stopped, as in ``tune``. First in the order of the trials,
then in random orders, since what a sampler proposed last is better than what it proposed first.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from schn_ray.training.metrics_file import read_metrics
from schn_ray.tuning.halving import is_hopeless
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.space import Pruning

AT_ONCE = 2
SETTINGS = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3), (2, 4), (2, 5), (3, 3), (3, 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orders", type=int, default=40)
    arguments = parser.parse_args()
    runs = sorted((arguments.folder / "unpruned" / "trials").iterdir())
    curves = [
        list(accumulate((line[VALIDATION_MAP] for line in read_metrics(run)), max)) for run in runs
    ]
    best, orders = max(curve[-1] for curve in curves), shuffled(len(curves), arguments.orders)
    print(f"{len(curves)} trials, best {best:.4f}; share of iterations saved, best with pruning")
    for grace, factor in SETTINGS:
        saved, top = replayed(curves, range(len(curves)), grace, factor)
        found = [replayed(curves, order, grace, factor) for order in orders]
        same = fmean(value == best for _, value in found)
        print(
            f"grace {grace}, factor {factor}: {saved:.0%}, {top:.4f}; in {len(orders)} orders "
            f"{fmean(share for share, _ in found):.0%}, the best kept in {same:.0%}, "
            f"{best - fmean(value for _, value in found):.4f} lost in the mean",
            flush=True,
        )


def shuffled(trials: int, orders: int) -> list[list[int]]:
    """Return orders of the trials, each begun by trial 0."""
    draw = random.Random(0)
    return [[0, *draw.sample(range(1, trials), trials - 1)] for _ in range(orders)]


def replayed(
    curves: list[list[float]], order: Sequence[int], grace: int, factor: int
) -> tuple[float, float]:
    """Return the share of iterations that were not run, and the best figure of a whole trial."""
    pruning = Pruning(grace=grace, factor=factor)
    waiting, running = list(order), list[int]()
    reached: dict[int, list[tuple[float]]] = {}
    ran, best = 0, 0.0
    left = {number: list(enumerate(curves[number], 1)) for number in order}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running.append(waiting.pop(0))
        for number in list(running):
            iteration, score = left[number].pop(0)
            ran += 1
            if not left[number]:
                running.remove(number)
                best = max(best, score)
            elif pruning.rung(iteration) == iteration:
                others = reached.setdefault(iteration, [])
                if number and is_hopeless((score,), others, factor):
                    running.remove(number)
                others.append((score,))
    return 1 - ran / sum(map(len, curves)), best


if __name__ == "__main__":
    main()
