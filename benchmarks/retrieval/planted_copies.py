"""Planted copies among CIFAR-10 photos: precision, and recall by kind of change; groups of a class.

    python -m benchmarks.retrieval.planted_copies STORE FEATURES --out DIR
        [--bits 64] [--rows 20000] [--plant 1000] [--radii 4 8 12] [--verify perceptual none]

STORE and FEATURES are what ``benchmarks.models.frozen_features --embed-only`` leaves. Fits ITQ on
the features, encodes all images, indexes ``--rows`` random ones, plants copies of ``--plant`` of
them and looks for them at each radius; then groups the gallery as it is, and says how large groups
are, and how many join labels. ``pairs-R.png`` in DIR shows pairs that are not of one original, the
copy on the left: look at them, since CIFAR-10 has copies of its own. May be run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import schn_ray
from schn_ray.data.images import decode
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.store.reader import open_store
from schn_ray.retrieval.duplicates.evidence import Verification, VerifyBy
from schn_ray.retrieval.duplicates.planted import KINDS, copies_of, plant_copies

_SIDE = 96  # pixels of a picture in a sheet
_PAIRS = 40


def indexed(store: Path, features: Path, out: Path, bits: int, rows: int) -> tuple[Path, Path]:
    """Return a model, and an index of random images."""
    run, index = out / f"run-{bits}", out / f"index-{bits}-{rows}"
    schn_ray.train(
        store, run, method="itq", preset="frozen", features=features, settings={"bits": bits}
    )
    codes = schn_ray.encode(features, run, out / f"codes-{bits}")
    if not index.exists():
        schn_ray.build_index(codes, index)
        opened = schn_ray.open_index(index)
        left_out = np.random.default_rng(0).permutation(len(opened))[rows:]
        schn_ray.change_index(index, remove=opened.ids(left_out))
    return run, index


def groups_of(index: Path, store: Path, radius: int, verify: VerifyBy, out: Path) -> dict[str, Any]:
    """Group the gallery as it is."""
    opened = open_store(store)
    label_of = dict(zip(opened.ids.to_pylist(), opened.labels.indices.tolist(), strict=True))
    started = time.process_time()
    counts = schn_ray.duplicates(index, out, radius=radius, verify=verify).counts
    groups: dict[int, list[int]] = {}
    for row in pq.read_table(out, columns=["group", "id"]).to_pylist():
        groups.setdefault(row["group"], []).append(label_of[row["id"]])
    return {
        "groups": counts.groups,
        "in_groups": counts.in_groups,
        "largest": counts.largest,
        "of_more_than_one_label": sum(len(set(labels)) > 1 for labels in groups.values()),
        "candidates": counts.candidates,
        "warning": counts.warning,
        "cpu_s": round(time.process_time() - started, 1),
    }


def draw_pairs(table: Path, out: Path) -> int:
    """Draw pairs whose gallery image is not the copy's original, the copy on the left."""
    pairs = [
        row for row in pq.read_table(table).to_pylist() if row["match_id"] not in (None, row["id"])
    ]
    pairs.sort(key=lambda row: (row["right"], -(row["difference"] or 0)))
    sheet = Image.new("RGB", (10 * 2 * _SIDE, -(-len(pairs[:_PAIRS]) // 10) * _SIDE or 1), "white")
    for number, row in enumerate(pairs[:_PAIRS]):
        copy = copies_of(fetch(row["uri"]), row["row"])[list(KINDS).index(row["kind"])]
        y, x = divmod(number, 10)
        for side, data in enumerate((copy, fetch(row["match_uri"]))):
            picture = decode(data, 10**8).resize((_SIDE - 4, _SIDE - 4))
            sheet.paste(picture, ((2 * x + side) * _SIDE, y * _SIDE))
    sheet.save(out)
    return len(pairs)


def main() -> None:
    """Plant, look for, group."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--plant", type=int, default=1_000)
    parser.add_argument("--radii", type=int, nargs="+", default=[4, 8, 12])
    parser.add_argument(
        "--verify", nargs="+", choices=get_args(VerifyBy), default=["perceptual", "none"]
    )
    asked = parser.parse_args()
    run, index = indexed(asked.store, asked.features, asked.out, asked.bits, asked.rows)
    for verify in asked.verify:
        for radius in asked.radii:
            name = f"{verify}-{asked.bits}-{radius}"
            table, started = asked.out / f"planted-{name}.parquet", time.process_time()
            counts = plant_copies(index, run, asked.plant, radius, table, Verification(verify))
            result: dict[str, Any] = {"verify": verify, "bits": asked.bits, "radius": radius}
            result["precision"] = counts.precision
            result["pairs"], result["right"] = counts.pairs, counts.right
            for kind in counts.kinds:
                result[kind.kind] = {
                    "recall": round(kind.recovered / kind.planted, 3),
                    "near": round(kind.near / kind.planted, 3),
                }
            result["cpu_s"] = round(time.process_time() - started, 1)
            if verify == "perceptual":
                result["not_of_one_original"] = draw_pairs(table, asked.out / f"pairs-{name}.png")
            print(json.dumps(result), flush=True)
            groups = groups_of(index, asked.store, radius, verify, asked.out / f"{name}.parquet")
            print(json.dumps({"verify": verify, "radius": radius} | groups), flush=True)


if __name__ == "__main__":
    main()
