"""Mean average precision against code length on digits: a Pareto front, and its points retrained.

    python -m benchmarks.tuning.front DIR --trials 16

Searches ``code_length`` with the small network of ``quick``, and trains the settings of each point
of the front once more, from its file in pareto/, as ``train --config`` would. May be killed and run
again.
"""

from __future__ import annotations

import argparse
import multiprocessing
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.support.digits import prepare_digits
from benchmarks.tuning.digits import searched
from schn_ray.cluster.tune import SearchBudget
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.manifest import read_manifest
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.results import PARETO
from schn_ray.tuning.rows import front
from schn_ray.tuning.space import base_config, read_space
from schn_ray.tuning.study import Search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    store, out = folder / "store", folder / "front"
    prepare_digits(store)
    space = read_space("code_length").model_copy(update={"fixed": read_space("quick").fixed})
    base = base_config(space, "digits", None, ())
    searched(space, base, store, out, SearchBudget(arguments.trials, at_once=2))
    search = Search(out, space, base)
    points = front(search.rows(), space.objectives)
    files = [out / PARETO / f"trial-{row.number:04}.yaml" for row in points]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        again = pool.starmap(retrained, [(file, store, folder / "again") for file in files], 1)
    for row, found in zip(points, again, strict=True):
        figure = row.figures[VALIDATION_MAP]
        print(f"trial {row.number}: {row.values['bits']} bits, {figure:.6f}; retrained {found:.6f}")


def retrained(file: Path, store: Path, runs: Path) -> float:
    torch.set_num_threads(1)
    run = runs / file.stem
    with suppress(AlreadyDone):
        train_locally(train_config("digits", file), store, run)
    return float(read_manifest(run, "run").counts["best_validation_map"])


if __name__ == "__main__":
    main()
