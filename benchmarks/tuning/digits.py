"""A search on digits: what it finds, how long it takes, what pruning saves, what trials cost.

    python -m benchmarks.tuning.digits DIR --trials 30 --repeats 5
    python -m benchmarks.tuning.digits DIR --trials 30 --unpruned

The first searches ``quick`` and confirms the winner. The second trains the very same settings again
without pruning, in a search whose starting points they are, and compares: the epochs that were run,
and the best value. Either may be killed and run again.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.support.digits import prepare_digits
from schn_ray.cluster.tune import SearchBudget, tune_on_ray
from schn_ray.core.directories import AlreadyDone
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.results import planned_iterations, seconds_outside_training, study_text
from schn_ray.tuning.rows import ranked
from schn_ray.tuning.space import Space, base_config, read_space
from schn_ray.tuning.study import Search


def main() -> None:
    arguments = parsed()
    folder: Path = arguments.folder
    store = folder / "store"
    prepare_digits(store)
    space = read_space(arguments.space)
    settings = tuple(arguments.set or ())
    effort = SearchBudget(arguments.trials, at_once=2, repeats=arguments.repeats)
    base = base_config(space, None, None, settings)
    searched(space, base, store, folder / "search", effort)
    if arguments.unpruned:
        search = Search(folder / "search", space, base)
        rows = search.rows()
        whole = space.model_copy(
            update={"start": tuple(row.values for row in rows), "pruning": None}
        )
        searched(whole, base, store, folder / "unpruned", SearchBudget(len(rows), at_once=2))
        compare(space, whole, base, folder)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default="quick")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--unpruned", action="store_true")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE")
    return parser.parse_args()


def searched(space: Space, base: TrainConfig, store: Path, out: Path, effort: SearchBudget) -> None:
    began = time.monotonic()
    with suppress(AlreadyDone):
        tune_on_ray(space, base, store, out, effort)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes, start of Ray and confirmation included")
    search = Search(out, space, base)
    minutes = sum(sitting["seconds"] for sitting in search.sessions()) / 60
    beside = seconds_outside_training(search)
    print(
        f"{minutes:.1f} minutes for the trials alone; beside its training a trial took {beside} s"
    )
    print(study_text(out), flush=True)


def compare(space: Space, whole: Space, base: TrainConfig, folder: Path) -> None:
    pruned, full = (
        Search(folder / name, s, base) for name, s in (("search", space), ("unpruned", whole))
    )
    ran = sum(row.iterations for row in pruned.rows())
    planned = sum(planned_iterations(full, row) for row in full.rows())
    best, best_of_all = (ranked(s.rows())[0] for s in (pruned, full))
    scores = [row.figures[VALIDATION_MAP] for row in (best, best_of_all)]
    print(f"iterations: {ran} of {planned} run, {1 - ran / planned:.0%} saved")
    print(
        f"best with pruning: {scores[0]:.4f} (trial {best.number}); without: {scores[1]:.4f} "
        f"(trial {best_of_all.number})"
    )


if __name__ == "__main__":
    main()
