"""TPE against random search on a recorded table of trainings: same space, same budget, 5 seeds.

    python -m benchmarks.tuning.samplers --record      # trains the whole table: 72 runs of seconds
    python -m benchmarks.tuning.samplers               # searches it, in seconds

The table has the validation mAP of every setting of a small space (digits, 12 bits, a tiny
network, 4 iterations), so a search costs nothing and both samplers see the very same figures. Both
begin with the same trial 0, a poor one, and neither is proposed a setting twice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.support.digits import TINY, prepare_digits
from schn_ray.core.atomic_files import write_json
from schn_ray.core.settings import validated
from schn_ray.training.config import TrainConfig
from schn_ray.training.run import train_locally
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial_settings import Values

TABLE = Path(__file__).parent / "samplers.json"
SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": TINY
    | {
        "schedule.iterations": 4,
        "schedule.samples": 640,
        "schedule.decay_after": [3],
    },
    "parameters": {
        "optimiser.learning_rate": {"choices": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
        "method.quantization": {"choices": [0.1, 1.0, 10.0, 100.0]},
        "method.initial_codes": {"choices": ["zeros", "random", "hadamard"]},
    },
    "start": [
        {
            "optimiser.learning_rate": 1e-4,
            "method.quantization": 0.1,
            "method.initial_codes": "zeros",
        }
    ],
}


def main() -> None:
    arguments = parsed()
    if arguments.record:
        record()
    table = json.loads(TABLE.read_text())
    seeds = range(arguments.seeds)
    budgets = [b for b in (5, 10, 15, 20, 30, 40) if b <= arguments.trials]
    curves = {
        sampler: [searched(table, sampler, seed, arguments.trials) for seed in seeds]
        for sampler in ("tpe", "random")
    }
    print(f"best of all {len(table)} settings: {max(table.values()):.4f}")
    print("trials " + " ".join(f"{budget:>15}" for budget in budgets))
    for sampler, found in curves.items():
        shown = []
        for budget in budgets:
            best = [curve[budget - 1] for curve in found]
            shown.append(f"{statistics.fmean(best):.4f} ±{statistics.stdev(best):.4f}")
        print(f"{sampler:<7}" + " ".join(f"{text:>15}" for text in shown))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="train the table again")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


def record() -> None:
    """Train every setting, two at once, and write the table."""
    space = validated(Space, SPACE)
    base = base_config(space, None, None, ())
    keys, domains = list(space.parameters), [d.choices or () for d in space.parameters.values()]
    settings = [dict(zip(keys, values, strict=True)) for values in itertools.product(*domains)]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        prepare_digits(store)
        tasks = [(base.config(s), store, Path(folder) / f"{i}") for i, s in enumerate(settings)]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            scores = pool.starmap(trained, tasks, chunksize=1)
    write_json(TABLE, {name_of(s): score for s, score in zip(settings, scores, strict=True)})


def trained(config: TrainConfig, store: Path, out: Path) -> float:
    return float(train_locally(config, store, out).counts["best_validation_map"])


def searched(table: dict[str, float], sampler: str, seed: int, trials: int) -> list[float]:
    """Return the best figure after each trial."""
    space = validated(Space, SPACE | {"sampler": sampler})
    best: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        search = Search(Path(folder), space, base_config(space, None, None, ()), seed)
        while len(best) < trials and (proposal := search.propose()) is not None:
            score = table[name_of(proposal.values)]
            search.finish(proposal.number, Outcome("complete", {"validation_map": score}))
            best.append(max([score, *best[-1:]]))
    return best + best[-1:] * (trials - len(best))


def name_of(values: Values) -> str:
    return json.dumps([values[key] for key in SPACE["parameters"]])


if __name__ == "__main__":
    main()
