"""TPE against random search, each with pruning and without, on a recorded table of trainings.

    python -m benchmarks.tuning.samplers --record STORE [--features FEATURES]   # 512 trainings
    python -m benchmarks.tuning.samplers --seeds 20

The table has the curve (validation mAP after each iteration) of CSQ with each of 512 settings, so
a search costs nothing and all see the very same figures. Numbers are searched on their scale, as in
``tune``: the scale is divided into equal cells, the table has the training at each cell's middle,
and a proposal is answered by its cell. All begin with the same trial 0, the settings as published.
Budgets are iterations, since a stopped trial costs fewer. May be killed and run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats

from schn_ray.core.settings import validated
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import train_locally
from schn_ray.tuning.confirm import gain
from schn_ray.tuning.objectives import VALIDATION_MAP
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Domain, Space
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial_settings import TrialSettings, Values, with_values

TABLE = Path(__file__).parent / "samplers.jsonl"
METHOD, ITERATIONS = "csq", 8
CELLS = {"optimiser.learning_rate": 8, "method.quantization": 4, "optimiser.weight_decay": 4}
SPACE: dict[str, Any] = {
    "parameters": {
        "optimiser.learning_rate": {"log": [1e-4, 1e-1]},
        "method.quantization": {"log": [1e-3, 1.0]},
        "optimiser.weight_decay": {"log": [1e-5, 1e-1]},
        "head.kind": {"choices": ["linear", "mlp"]},
        "schedule.batch_size": {"choices": [128, 512]},
    },
    "start": [
        {
            "optimiser.learning_rate": 1e-4,
            "method.quantization": 0.05,
            "optimiser.weight_decay": 1e-5,
            "head.kind": "linear",
            "schedule.batch_size": 128,
        }
    ],
}
PRUNING = {"grace": 2, "factor": 2}  # judged after 2 and 4 of the 8 iterations
BUDGETS = (80, 160, 240, 320, 480)
Curve = list[float]


def main() -> None:
    arguments = parsed()
    if arguments.record:
        record(arguments.record, arguments.features)
    curves = recorded()
    assert len(curves) == len(settings()), "the table is not whole: --record goes on with it"
    best = max(max(curve) for curve in curves.values())
    print(f"{len(curves)} settings, best {best:.4f}; {arguments.seeds} seeds")
    results = {}
    for name, space in {
        "random": {"sampler": "random"},
        "TPE": {"sampler": "tpe"},
        "random, pruned": {"sampler": "random", "pruning": PRUNING},
        "TPE, pruned": {"sampler": "tpe", "pruning": PRUNING},
    }.items():
        results[name] = [searched(curves, SPACE | space, seed) for seed in range(arguments.seeds)]
        print(f"| {name} | " + " | ".join(map(with_interval, zip(*results[name], strict=True))))
    print("gain over random, seed by seed, at each budget:")
    for name, bests in results.items():
        for budget, mine, others in zip(
            BUDGETS, zip(*bests, strict=True), zip(*results["random"], strict=True), strict=True
        ):
            if name != "random":
                print(f"{name}, {budget} iterations: {gain(others, mine)}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", metavar="STORE", help="train the settings that the table lacks")
    parser.add_argument("--features")
    parser.add_argument("--seeds", type=int, default=20)
    return parser.parse_args()


def settings() -> list[Values]:
    """Return the recorded settings: all combinations of choices and of the middles of cells."""
    space = validated(Space, SPACE)
    levels = {
        key: domain.choices or [middle(domain, cell, CELLS[key]) for cell in range(CELLS[key])]
        for key, domain in space.parameters.items()
    }
    return [dict(zip(levels, one, strict=True)) for one in itertools.product(*levels.values())]


def middle(domain: Domain, cell: int, cells: int) -> float:
    """Return the middle of a cell of a logarithmic scale, to three digits."""
    low, high = domain.ends
    return float(f"{low * (high / low) ** ((cell + 0.5) / cells):.3g}")


def number_of(space: Space, values: Values) -> int:
    """Return the number of the recorded setting in whose cell the values are."""
    number = 0
    for key, domain in space.parameters.items():
        if domain.choices is not None:
            number = number * len(domain.choices) + domain.choices.index(values[key])
        else:
            low, high = domain.ends
            share = math.log(values[key] / low) / math.log(high / low)
            number = number * CELLS[key] + min(int(share * CELLS[key]), CELLS[key] - 1)
    return number


def recorded() -> dict[int, Curve]:
    """Return number of a setting -> its curve; a line that a kill has cut is left out."""
    lines = TABLE.read_text().splitlines(keepends=True) if TABLE.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return {number: curve for number, *curve in whole}


def record(store: str, features: str | None) -> None:
    """Train every setting that the table lacks, one after the other."""
    torch.set_num_threads(1)
    schedule = {"iterations": ITERATIONS, "epochs": 1, "decay_after": [4, 6]}
    given = settings_of_inputs(store, features) | {"schedule": schedule}
    base = train_config("frozen", method=METHOD, base=given)
    known = recorded()
    TABLE.write_text("".join(line_of(number, curve) for number, curve in known.items()))
    for number, values in enumerate(settings()):
        if number in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            train_locally(with_values(base, values), store, run, features=features)
            curve = [round(line[VALIDATION_MAP], 5) for line in read_metrics(run)]
        with TABLE.open("a") as file:
            file.write(line_of(number, curve))


def line_of(number: int, curve: Curve) -> str:
    return json.dumps([number, *curve]) + "\n"


def searched(curves: dict[int, Curve], space: dict[str, Any], seed: int) -> list[float]:
    """Return the best figure of a whole trial within each budget of iterations."""
    checked, spent, best = validated(Space, space), 0, 0.0
    base = with_values(train_config("frozen", method=METHOD), {"schedule.iterations": ITERATIONS})
    within = dict.fromkeys(BUDGETS, 0.0)
    # in memory where that is: a study is on the disk after each of its steps
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        search = Search(Path(folder), checked, TrialSettings({METHOD: base}), seed)
        while spent < BUDGETS[-1] and (proposal := search.propose()) is not None:
            outcome = Outcome("complete")
            scores = list(itertools.accumulate(curves[number_of(checked, proposal.values)], max))
            for iteration, score in enumerate(scores, 1):
                spent += 1
                if search.report_score(proposal.number, iteration, score):
                    outcome = Outcome("pruned")
                    break
            else:
                best = max(best, scores[-1])
                outcome = Outcome("complete", {VALIDATION_MAP: scores[-1]})
            search.finish(proposal.number, outcome)
            within = {b: best if spent <= b else value for b, value in within.items()}
    return list(within.values())


def with_interval(bests: Sequence[float]) -> str:
    """Return the mean with half the width of its 95 % interval (Student's t)."""
    half = stats.t.ppf(0.975, len(bests) - 1) * stdev(bests) / math.sqrt(len(bests))
    return f"{fmean(bests):.4f} ±{half:.4f}"


if __name__ == "__main__":
    main()
