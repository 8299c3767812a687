"""What a trial of a search takes beside its training, with one worker.

    python -m benchmarks.tuning.overhead DIR --store STORE [--features FEATURES] --trials 20

The same trainings twice: as trials in this process (inputs opened, checkpoints and the model
written, the manifest), and as trials of ``tune`` on Ray Tune, one at a time, each from the end of
the one before it to its own. The seconds of a trial's own iterations are taken off, so what else
the machine does counts once. In this process they are measured, wall and CPU. On Ray Tune they are
those that the trial recorded, without validation. CPU time of the driver, which proposes and
records, stands apart. Medians are printed, without the first trial. STORE has validation rows.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from schn_ray.cluster.tune import SearchBudget, tune_on_ray
from schn_ray.core.manifest import read_manifest
from schn_ray.training import loop
from schn_ray.training.config import TrainConfig
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.state import Run
from schn_ray.tuning.method_spaces import opened_space
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial import open_inputs, run_trial, train_trial, trial_dir
from schn_ray.tuning.trial_settings import TrialSettings

Seconds = tuple[float, float]  # wall, CPU of this process


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
    tuned = trials_of_tune(given, space, base)
    rows = Search(given.out / "search", space, base).rows()
    print(f"{given.method}, {given.trials} trials, median seconds")
    trials, iterations = in_this_process(given, [base.config(row.values) for row in rows])
    for what, at in ("wall", 0), ("CPU", 1):
        whole = [seconds[at] for seconds in trials[1:]]
        own = [seconds[at] for seconds in iterations[1:]]
        beside = median(a - b for a, b in zip(whole, own, strict=True))
        print(f"in this process, {what}: {median(whole):.3f}, beside its iterations {beside:.3f}")
    steps = [seconds_trained(given.out / f"search/trials/{row.number:04}") for row in rows[1:]]
    walls, drivers = zip(*tuned, strict=True)
    beside = median(a - b for a, b in zip(walls, steps, strict=True))
    print(f"of tune, wall: {median(walls):.3f}, beside its iterations' training {beside:.3f}")
    print(f"of tune, CPU of the driver: {median(drivers):.3f}")


def trials_of_tune(given: argparse.Namespace, space: Space, base: TrialSettings) -> list[Seconds]:
    """Run a search; return wall and driver's CPU of each trial but the first."""
    ended: list[Seconds] = []
    finish = Search.finish

    def timed_finish(search: Search, number: int, outcome: Outcome) -> None:
        finish(search, number, outcome)
        ended.append((time.monotonic(), time.process_time()))

    Search.finish = timed_finish  # type: ignore
    budget = SearchBudget(given.trials, at_once=1)
    tune_on_ray(space, base, given.store, given.out / "search", budget, 0, given.features)
    Search.finish = finish  # type: ignore
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ended)]


def in_this_process(
    given: argparse.Namespace, configs: Sequence[TrainConfig]
) -> tuple[list[Seconds], list[Seconds]]:
    """Run trials; return the seconds of each, and of its iterations."""
    opened = functools.lru_cache(maxsize=1)(open_inputs)
    iterate, parts = loop.train_iteration, list[Seconds]()

    def timed_iteration(run: Run) -> loop.Iteration:
        measured: list[loop.Iteration] = []
        parts.append(timed(lambda: measured.append(iterate(run))))
        return measured[0]

    loop.train_iteration = timed_iteration
    trials, iterations = list[Seconds](), list[Seconds]()
    for number, config in enumerate(configs):
        parts.clear()
        trial = functools.partial(
            run_trial,
            config,
            given.store,
            trial_dir(str(given.out / "alone"), number),
            lambda *_: None,
            functools.partial(train_trial, features=given.features, opened=opened),
            ["validation_map"],
        )
        trials.append(timed(trial))
        iterations.append((sum(wall for wall, _ in parts), sum(cpu for _, cpu in parts)))
    return trials, iterations


def seconds_trained(run: Path) -> float:
    """Return the seconds that a run's iterations took, without validation."""
    manifest = read_manifest(run, "run")
    passes = manifest.counts["training_rows"] * manifest.config["schedule"]["epochs"]
    steps = (float(line["images_per_second"]) for line in read_metrics(run))
    return float(sum(passes / speed for speed in steps))


def timed(work: Callable[[], object]) -> Seconds:
    """Return what work takes in this process."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
