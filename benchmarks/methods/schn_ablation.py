"""What each part of schn-plus is worth on frozen features: one line for each part off, or on.

    python -m benchmarks.methods.schn_ablation STORE FEATURES --out DIR --bits 32 --seeds 0 1 2

STORE and FEATURES are those of a data set of a suite, such as ``DIR/data/cifar10/store`` of
``schn-ray benchmark frozen --out DIR``. Every case is trained with the preset ``frozen`` and 512
hidden units, and evaluated on the queries of the store. Seeds are averaged for each query;
differences to the first case are paired by query, with a bootstrap interval (95 %). May be killed
and run again.
"""

from __future__ import annotations

import argparse
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray

import schn_ray
from schn_ray.evaluation.metrics.bootstrap import paired_difference
from schn_ray.evaluation.results import read_figures, read_queries

PUBLISHED = {"hash_semantic": 1, "hash_latent": 1, "cycle_image": 1, "cycle_semantic": 1}


@dataclass(frozen=True)
class Case:
    """Settings that differ from those of schn-plus, or of another method.

    Attributes:
        name: of its directory, and in the table.
        settings: of ``train``.
        method: its name.
    """

    name: str
    settings: dict[str, object] = field(default_factory=dict)
    method: str = "schn-plus"


def of_method(name: str, **settings: object) -> Case:
    """Return a case of schn-plus with other settings of the method."""
    return Case(name, {f"method.{key}": value for key, value in settings.items()})


CASES = (
    Case("schn-plus"),
    of_method("no likelihood of pairs", pair=0),
    of_method("no hash loss", hash_image=0),
    of_method("no update of the codes", update_codes=False),
    of_method("no quantization", quantization=0),
    of_method("quantization 1", quantization=1),
    of_method("start: zeros", initial_codes="zeros"),
    of_method("start: hadamard", initial_codes="hadamard"),
    of_method("soft negatives", negative_target="soft"),
    of_method("with the semantic network", hash_semantic=1),
    of_method("with semantic and latent", hash_semantic=1, hash_latent=1),
    of_method("with both and cycles", **PUBLISHED),
    of_method("with all and adversaries", **PUBLISHED, adversarial=1),
    Case("schn", method="schn"),
    Case("csq", method="csq"),
    Case("dlbhc", method="dlbhc"),
    Case("hashnet", method="hashnet"),
)


def main() -> None:
    """Train, evaluate, and print a line a case as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = None
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        began = process_time()
        precision = np.mean([measured(case, seed, arguments) for seed in arguments.seeds], axis=0)
        base = precision if base is None else base
        line = f"{case.name:28} {np.nanmean(precision):.4f}"
        gap = None if base is precision else paired_difference(base, precision)
        if gap is not None:
            known = gap.interval
            line += f"  {known.mean:+.4f} [{known.low:+.4f}, {known.high:+.4f}]"
        print(f"{line}  n={len(arguments.seeds)}  {process_time() - began:.0f} s", flush=True)


def measured(case: Case, seed: int, arguments: argparse.Namespace) -> NDArray[np.float64]:
    """Return the average precision of each query, of one training."""
    words = case.name.replace(",", "").replace(":", "").split()
    run = arguments.out / f"{'-'.join(words)}-{arguments.bits}-{seed}"
    settings = {"bits": arguments.bits, "seed": seed, "head.kind": "mlp"} | case.settings
    with redirect_stdout(StringIO()):
        schn_ray.train(
            arguments.store,
            run,
            method=case.method,
            preset="frozen",
            features=arguments.features,
            settings=settings,
        )
        controls = {"controls.train_rows": 0}
        schn_ray.evaluate(run, arguments.store, features=arguments.features, settings=controls)
    assert read_figures(f"{run}-evaluation").map is not None
    precision: NDArray[np.float64] = read_queries(f"{run}-evaluation")[1]["average_precision"]
    return precision


if __name__ == "__main__":
    main()
