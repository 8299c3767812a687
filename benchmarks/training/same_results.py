"""Record what the chain of verbs gives on digits, or compare it with an earlier record.

    python -m benchmarks.training.same_results DIR --record before.json
    python -m benchmarks.training.same_results DIR --against before.json

Goes through the command line only, so that code may move between the two calls: prepare, training
with one and with two workers, encode, index, 500 queries, evaluate, and a study of six trials. The
record has SHA-256 of weights and codes, all figures, every answer, and the study's best settings;
no paths, versions or fingerprints. Equal means equal to the bit. DIR may be used again: what is
finished there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file

CODE_COLUMNS = ("id", "code")
QUERIES = 500
UNLIKE = {"run", "model", "store"}  # names and fingerprints, which say where and when


def schn_ray(*arguments: object) -> str:
    command = [sys.executable, "-m", "schn_ray", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights(run: Path) -> dict[str, str]:
    tensors = load_file(run / "model" / "weights.safetensors")
    return {name: sha256(tensor.tobytes()) for name, tensor in sorted(tensors.items())}


def codes(*files: Path) -> str:
    """Digest ids and codes of Parquet files, in the order of ids."""
    rows: list[tuple[str, str]] = []
    for file in files:
        table = pq.read_table(file)
        ids, packed = (table[name].to_pylist() for name in CODE_COLUMNS)
        rows += [(id, bytes(code).hex()) for id, code in zip(ids, packed, strict=True)]
    return sha256(json.dumps(sorted(rows)).encode())


def run_of(folder: Path, workers: int) -> dict[str, Any]:
    run = folder / f"run-{workers}"
    schn_ray("train", folder / "store", "--out", run, "--preset", "digits", "--workers", workers)
    return {"weights": weights(run), "learned": codes(run / "learned.parquet")}


def answers(index: Path, some: Path) -> list[Any]:
    packed = pq.read_table(some)["code"].to_pylist()[:QUERIES]
    options = [part for code in packed for part in ("--code", bytes(code).hex())]
    results = json.loads(schn_ray("search", index, "-k", 10, *options, "--json"))
    return [[[hit["id"], hit["distance"]] for hit in result["hits"]] for result in results]


def figures(evaluation: Path) -> dict[str, Any]:
    measured = json.loads((evaluation / "metrics.json").read_text())
    return {name: value for name, value in measured.items() if name not in UNLIKE}


def record(folder: Path) -> dict[str, Any]:
    store, index, search = folder / "store", folder / "index", folder / "search"
    schn_ray("prepare", "digits", "--out", store)
    found: dict[str, Any] = {f"{n} workers": run_of(folder, n) for n in (1, 2)}
    run = folder / "run-2"
    schn_ray("encode", "digits", "--model", run, "--out", folder / "codes")
    parts = sorted((folder / "codes").glob("data/part-*.parquet"))
    found["codes"] = codes(*parts)
    schn_ray("index", folder / "codes", "--out", index)
    found["answers"] = answers(index, parts[0])
    schn_ray("evaluate", run, "--store", store, "--out", folder / "evaluation")
    found["figures"] = figures(folder / "evaluation")
    one_at_a_time = ("--at-once", 1)
    schn_ray("tune", store, "--space", "quick", "--trials", 6, *one_at_a_time, "--out", search)
    found["best"] = yaml.safe_load((search / "best.yaml").read_text())
    return found


def unlike(before: Any, after: Any, name: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        names = dict.fromkeys([*before, *after])
        return [line for n in names for line in unlike(before.get(n), after.get(n), f"{name}/{n}")]
    return [] if before == after else [f"{name}: {str(before)[:80]} before, {str(after)[:80]} now"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    found = record(arguments.folder)
    if arguments.record:
        arguments.record.write_text(json.dumps(found, indent=1))
    if arguments.against:
        lines = unlike(json.loads(arguments.against.read_text()), found, "")
        print("\n".join(lines) or f"all the same: {sum(map(len, found.values()))} entries")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
