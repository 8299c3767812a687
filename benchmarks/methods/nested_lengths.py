"""All lengths from one training, against a training for each: time and mAP on frozen features.

    python -m benchmarks.methods.nested_lengths STORE FEATURES --out DIR

STORE and FEATURES are those of ``benchmarks.models.frozen_features --embed-only``. Each method
trains a head by the preset ``frozen`` for 16, 24, 32, 48 and 64 bits, and once for all of them;
the seconds are of this process's CPU, and of training alone. mAP is of all queries against gallery
rows drawn at random, exact under ties; the interval is of the paired difference over queries, the
mean of the seeds. May be killed and run again.

    python -m benchmarks.methods.nested_lengths STORE --scratch --out DIR

Time alone, where a backbone is trained, too: the compact network ``small`` on 1,280 of STORE's
images of 32 pixels, in one pass.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

import schn_ray
from schn_ray.core.bits import pack_signs
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import paired_difference
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.models.load import load
from schn_ray.models.stored_features import StoredFeatures

LENGTHS = (16, 24, 32, 48, 64)
METHODS = ("schn-plus", "csq", "dpsh")


class Side(NamedTuple):
    """Vectors [n, d] and labels [n, C] of the queries, or of the gallery."""

    X: NDArray[np.float32]
    Y: csr_array


def sides(store_path: Path, features: Path, gallery: int) -> tuple[Side, Side]:
    """Return the queries, and gallery rows that are drawn at random."""
    store, stored = open_store(store_path), StoredFeatures(features)
    rows = store.rows("gallery")
    drawn = np.sort(np.random.default_rng(0).permutation(rows)[:gallery])
    near, far = (
        Side(stored.of_store(store, of).vectors(of), store.labels[of])
        for of in (store.rows("query"), drawn)
    )
    return near, far


HEAD: dict[str, Any] = {"preset": "frozen", "settings": {"head.kind": "mlp"}}
SCRATCH: dict[str, Any] = {
    "settings": {
        "backbone.name": "small",
        "backbone.weights": "none",
        "backbone.image_size": 32,
        "schedule.iterations": 1,
        "schedule.epochs": 1,
        "schedule.samples": 1280,
    }
}


def trained(
    store: Path, run: Path, options: dict[str, Any], method: str, settings: dict[str, object]
) -> float:
    """Train a model, and return its seconds of CPU."""
    seconds = run.with_suffix(".seconds")
    started = time.process_time()
    given = options | {"settings": options["settings"] | settings}
    schn_ray.train(store, run, method=method, **given)
    if not seconds.exists():
        seconds.write_text(str(time.process_time() - started))
    return float(seconds.read_text())


def precision(run: Path, bits: int, near: Side, far: Side) -> NDArray[np.float64]:
    """Return the average precision of each query by codes of so many bits."""
    head = load(run).of_features().first(bits)
    codes = [pack_signs(head.relaxed_of(side.X, batch_size=1024)) for side in (near, far)]
    return average_precision(distance_histograms(codes[0], near.Y, codes[1], far.Y, bits))


def trainings(
    asked: argparse.Namespace, method: str, seed: int, options: dict[str, Any]
) -> tuple[dict[int, Path], Path, float, float]:
    """Train each length and all of them; return the runs, and the seconds of either."""
    alone, alone_s = dict[int, Path](), 0.0
    for k in LENGTHS:
        alone[k], settings = asked.out / f"{method}-{seed}-{k}", {"bits": k, "seed": seed}
        alone_s += trained(asked.store, alone[k], options, method, settings)
    nested, all_of_them = asked.out / f"{method}-{seed}-nested", list(LENGTHS)
    settings = {"nested": all_of_them, "seed": seed}
    return alone, nested, alone_s, trained(asked.store, nested, options, method, settings)


def main() -> None:
    """Print a line for each method and length."""
    parser = argparse.ArgumentParser(description="One training against one for each length.")
    parser.add_argument("store", type=Path)
    parser.add_argument("features", type=Path, nargs="?")
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--gallery", type=int, default=12_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.scratch == (asked.features is not None):
        parser.error("expected FEATURES, or --scratch")
    near, far = (None, None) if asked.scratch else sides(asked.store, asked.features, asked.gallery)
    options = SCRATCH if asked.scratch else HEAD | {"features": asked.features}
    # the first training of a process takes longer: not counted
    trained(asked.store, asked.out / "first", options, asked.methods[0], {"bits": LENGTHS[0]})
    for method in asked.methods:
        seconds, values = [0.0, 0.0], {k: ([], []) for k in LENGTHS}
        for seed in asked.seeds:
            alone, nested, *spent = trainings(asked, method, seed, options)
            seconds = [a + b for a, b in zip(seconds, spent, strict=True)]
            for k in LENGTHS if near and far else ():
                for run, own in zip((alone[k], nested), values[k], strict=True):
                    own.append(precision(run, k, near, far))
        share = seconds[1] / seconds[0]
        print(json.dumps({"method": method, "seeds": asked.seeds, "time": round(share, 3)}))
        for k in LENGTHS if near else ():
            one, other = (np.mean(each, axis=0) for each in values[k])
            gap = paired_difference(one, other)
            assert gap is not None
            figures = {"bits": k, "alone": one.mean(), "nested": other.mean()}
            figures |= {"less": gap.interval.mean, "low": gap.interval.low}
            figures |= {"high": gap.interval.high}
            print(json.dumps({name: round(float(x), 4) for name, x in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
