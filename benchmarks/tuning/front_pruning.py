"""What pruning by fronts saves and loses, replayed on the curves of whole trials.

    python -m benchmarks.tuning.front_pruning DIR --store STORE --features FEATURES --trials 60

First every trial is trained to its end, once, with settings drawn from the space: bits 16 to 128,
the method's own settings and the learning rate. Then the curves are replayed in random orders, two
trials at once, trial 0 never stopped, as in ``tune``. Hypervolume: of the front of validation mAP
against bits, over that of all trials; its corner is mAP 0 at 129 bits. May be killed and run again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from schn_ray.core.directories import AlreadyDone
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import train_locally
from schn_ray.tuning.halving import is_hopeless
from schn_ray.tuning.method_spaces import method_space
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.space import Domain, Pruning
from schn_ray.tuning.trial_settings import with_values

AT_ONCE = 2
BITS = Domain(choices=(16, 24, 32, 48, 64, 96, 128))
CORNER = 129
SETTINGS = [(1, 2), (1, 3), (1, 4), (2, 2), (2, 3)]


class Curve(NamedTuple):
    """One whole trial: bits of its codes, and its best validation mAP after each iteration."""

    bits: int
    scores: list[float]


def main() -> None:
    """Train every trial, then replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--features")
    parser.add_argument("--method", default="csq")
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--orders", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    curves = [trained(asked, number) for number in range(asked.trials)]
    draw = random.Random(0)
    count = len(curves)
    orders = [[0, *draw.sample(range(1, count), count - 1)] for _ in range(asked.orders)]
    whole = hypervolume([(curve.bits, curve.scores[-1]) for curve in curves])
    print(f"{count} trials of {asked.iterations} iterations, {asked.orders} orders")
    print(
        "| grace | factor | iterations saved | hypervolume kept, mean | least |\n|" + " --- |" * 5
    )
    for grace, factor in SETTINGS:
        replays = [replayed(curves, order, Pruning(grace=grace, factor=factor)) for order in orders]
        saved = fmean(share for share, _ in replays)
        kept = [volume / whole for _, volume in replays]
        print(f"| {grace} | {factor} | {saved:.0%} | {fmean(kept):.4f} | {min(kept):.4f} |")


def trained(asked: argparse.Namespace, number: int) -> Curve:
    """Train a trial to its end, unless that was done."""
    given = settings_of_inputs(asked.store, asked.features)
    schedule = {"schedule": {"iterations": asked.iterations, "decay_after": [3, 6]}}
    base = train_config("frozen", method=asked.method, base=given | schedule)
    draw, values = random.Random(number), dict[str, object]()
    for key, domain in ({"bits": BITS} | method_space(base).parameters).items():
        if domain.active(values):
            values[key] = domain.draw(draw)
    config = with_values(base, values if number else {"bits": 32})
    run = asked.out / f"trial-{number:03}"
    with suppress(AlreadyDone):
        train_locally(config, asked.store, run, features=asked.features)
    scores = [line[VALIDATION_MAP] for line in read_metrics(run)]
    return Curve(config.bits, list(accumulate(scores, max)))


def replayed(
    curves: Sequence[Curve], order: Sequence[int], pruning: Pruning
) -> tuple[float, float]:
    """Return the share of iterations that were not run, and the front's hypervolume."""
    waiting, running, ran = list(order), dict[int, int](), 0
    reached: dict[int, list[tuple[float, float]]] = {}
    ended = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            running[waiting.pop(0)] = 0
        for number in list(running):
            bits, scores = curves[number]
            running[number] += 1
            iteration, ran = running[number], ran + 1
            point = scores[iteration - 1], -float(bits)
            if iteration == len(scores):
                ended.append((bits, scores[-1]))
                del running[number]
            elif pruning.rung(iteration) == iteration:
                others = reached.setdefault(iteration, [])
                if number and is_hopeless(point, others, pruning.factor):
                    del running[number]
                others.append(point)
    return 1 - ran / sum(len(curve.scores) for curve in curves), hypervolume(ended)


def hypervolume(points: Sequence[tuple[int, float]]) -> float:
    """Return the area between (bits, mAP) points and the corner."""
    area, best = 0.0, 0.0
    for bits, after in pairwise([*sorted({bits for bits, _ in points}), CORNER]):
        best = max([best, *(score for b, score in points if b == bits)])
        area += best * (after - bits)
    return area


if __name__ == "__main__":
    main()
