"""Every method of the registry on the same features, split, budget and head, in one table.

    python -m benchmarks.methods.every_method DIR
    python -m benchmarks.methods.every_method DIR --store STORE --features FEATURES

Without a store, the features are the 64 pixels of scikit-learn's digits: 1,000 rows for training,
497 in the gallery, 300 queries. A store of photos and its features come from
``benchmarks.models.frozen_features --embed-only``. Each method trains with its own published
settings; optimiser, schedule and head are those of the preset ``frozen``. mAP is exact under ties,
of codes of the released model, on queries and a gallery outside of training. May be killed and run
again: what has ended is not trained again.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from pathlib import Path

import numpy as np
import torch
import yaml
from sklearn.datasets import load_digits

import schn_ray
from schn_ray.evaluation.results import read_figures
from schn_ray.methods.registry import METHODS, find_method


def digits(out: Path) -> Path:
    """Prepare the digits' pixels as vectors."""
    file = out / "digits.npy"
    if not file.is_file():
        rows, labels = load_digits(return_X_y=True)
        np.save(file, rows.astype(np.float32))
        (out / "digits.labels.txt").write_text("".join(f"{label}\n" for label in labels))
    settings: dict[str, object] = {
        "train_share": 0.5565,
        "validation_share": 0,
        "query_share": 0.167,
    }
    return Path(schn_ray.prepare(file, out / "digits", settings=settings))


def measure(
    name: str, seed: int, store: Path, features: Path | None, out: Path, settings: dict[str, object]
) -> tuple[float, float]:
    """Train and evaluate a method, unless both are there; return mAP and seconds of CPU time."""
    run, clock = out / f"{name}-{seed}", out / f"{name}-{seed}.seconds"
    started = _cpu_s()
    result = schn_ray.train(
        store,
        run,
        method=name,
        preset="frozen",
        features=features,
        settings=settings | {"seed": seed},
    )
    if not result.note:
        clock.write_text(f"{_cpu_s() - started:.1f}")
    controls = {"controls.train_rows": 0}
    schn_ray.evaluate(run, store, features=features, settings=controls)
    score = read_figures(f"{run}-evaluation").map
    assert score is not None
    return score, float(clock.read_text()) if clock.is_file() else float("nan")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Train and evaluate every method, then print the table."""
    parser = argparse.ArgumentParser(description="Every method on the same features.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    store = asked.store or digits(asked.out)
    settings: dict[str, object] = {"bits": asked.bits, "head.kind": "mlp"}
    settings |= {
        key: yaml.safe_load(text) for key, _, text in (p.partition("=") for p in asked.set)
    }
    lines = []
    for name in asked.only:
        measured = [
            measure(name, seed, store, asked.features, asked.out, settings) for seed in asked.seeds
        ]
        scores = [score for score, _ in measured]
        seconds = statistics.mean(seconds for _, seconds in measured)
        row = " ".join(f"{score:.3f}" for score in scores)
        supervision = find_method(name).labels
        lines.append(
            (-statistics.mean(scores), f"| {name} | {supervision} | {row} | {seconds:.0f} |")
        )
        print(lines[-1][1], flush=True)
    print(f"\n| method | labels | mAP, seeds {asked.seeds} | CPU s |\n| --- | --- | --- | --- |")
    print("\n".join(line for _, line in sorted(lines)))


if __name__ == "__main__":
    main()
