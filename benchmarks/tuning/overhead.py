"""What a trial of a search takes beside its training, with one worker.

    python -m benchmarks.tuning.overhead DIR --store STORE [--features FEATURES] --trials 20

The same trainings three times: only the loop, in this process; as trials, in this process (inputs
opened, checkpoints and models written, manifests); and as trials of ``tune`` on Ray Tune, one at a
time, each from the end of the one before it to its own. Medians are printed, and what is left after
the loop is taken off, in wall time and in CPU time, which depends less on what else the machine
does; that of the driver, which proposes and records, stands apart. STORE has validation rows.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import torch

from schn_ray.cluster.tune import SearchBudget, tune_on_ray
from schn_ray.core.workers import Workers
from schn_ray.models.hasher import best_device
from schn_ray.training.config import TrainConfig
from schn_ray.training.loop import train_run
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import build_run
from schn_ray.tuning.method_spaces import opened_space
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial import open_inputs, run_trial, train_trial, trial_dir

Seconds = tuple[float, float]  # wall, CPU


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", required=True)
    parser.add_argument("--features")
    parser.add_argument("--method", default="csq")
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(given.out, ignore_errors=True)
    inputs = settings_of_inputs(given.store, given.features)
    space = opened_space("method", "frozen", None, (), given.method, inputs)
    base = base_config(space, "frozen", None, (), given.method, inputs)
    budget = SearchBudget(given.trials, at_once=1)
    ended: list[list[float]] = []  # at the end of each trial: wall, CPU of driver and of trials
    finish = Search.finish

    def timed_finish(search: Search, number: int, outcome: Outcome) -> None:
        finish(search, number, outcome)
        ended.append([time.monotonic(), time.process_time(), trials_cpu()])

    Search.finish = timed_finish  # type: ignore[method-assign]
    tune_on_ray(space, base, given.store, given.out / "search", budget, 0, given.features)
    Search.finish = finish  # type: ignore[method-assign]
    rows = Search(given.out / "search", space, base).rows()
    tuned = [
        [after - before for before, after in zip(*ends, strict=True)] for ends in pairwise(ended)
    ]
    configs = [base.config(row.values) for row in rows]
    opened = functools.lru_cache(maxsize=1)(open_inputs)

    def loop(number: int, config: TrainConfig) -> None:
        store, features = opened(given.store, given.features)
        run = build_run(config, store, Workers(), best_device(), features=features)
        train = lambda: train_run(run, lambda *_: None)  # noqa: E731
        loops.append(timed(train))

    def trial(number: int, config: TrainConfig) -> None:
        run_trial(
            config,
            given.store,
            trial_dir(str(given.out / "alone"), number),
            lambda *_: None,
            functools.partial(train_trial, features=given.features, opened=opened),
            ["validation_map"],
        )

    loops: list[Seconds] = []
    alone: list[Seconds] = []
    for number, config in enumerate(configs):  # in turns
        loop(number, config)
        alone.append(timed(functools.partial(trial, number, config)))
    wall, cpu = (median(part) for part in zip(*loops[1:], strict=True))
    alone_wall, alone_cpu = (median(part) for part in zip(*alone[1:], strict=True))
    print(f"{given.method}, {given.trials} trials, median seconds; in brackets beside the loop")
    print(f"the loop                 {wall:.3f} wall, {cpu:.3f} CPU")
    print(f"as a trial, this process {alone_wall:.3f} wall ({alone_wall - wall:+.3f})", end="")
    print(f", {alone_cpu:.3f} CPU ({alone_cpu - cpu:+.3f})")
    tune_wall, driver_cpu, tune_cpu = (median(part) for part in zip(*tuned, strict=True))
    print(f"as a trial of tune       {tune_wall:.3f} wall ({tune_wall - wall:+.3f})", end="")
    print(f", {tune_cpu:.3f} CPU ({tune_cpu - cpu:+.3f}), and of the driver {driver_cpu:.3f} CPU")


def trials_cpu() -> float:
    """Return the CPU seconds of the processes that run trials."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, IndexError):
            if process.cmdline()[0].startswith("ray::ImplicitFunc"):
                total += sum(process.cpu_times()[:2])
    return total


def timed(work: Callable[[], object]) -> Seconds:
    """Return what work takes in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
