"""Planted copies among CIFAR-10 photos: precision, and recall by kind of change; groups of a class.

    python -m benchmarks.retrieval.planted_copies STORE FEATURES --out DIR
        [--bits 64] [--rows 20000] [--plant 1000] [--radii 4 8 12] [--verify perceptual none]

STORE and FEATURES are what ``benchmarks.models.frozen_features --embed-only`` leaves. Fits ITQ on
the features, encodes all images, indexes ``--rows`` random ones, plants copies of ``--plant`` of
them and looks for them at each radius; then groups the gallery as it is, and says how large groups
are, and how many join labels. ``pairs-R.png`` in DIR shows pairs that are not of one original, the
copy on the left: look at them, since CIFAR-10 has copies of its own. ``--feature-differences`` says
how far features of copies, and of other images, are apart; ``--one-code``, how 3,000 images of a
class are grouped if all have one code. May be run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

import schn_ray
from schn_ray.data.images import decode, evaluation_view
from schn_ray.data.shards.vectors import VectorColumn
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.stored import open_rows
from schn_ray.data.store.reader import open_store
from schn_ray.retrieval.duplicates.evidence import Evidence, Verification, VerifyBy
from schn_ray.retrieval.duplicates.planted import KINDS, copies_of, plant_copies
from schn_ray.retrieval.duplicates.thumbnails import (
    LIMIT,
    ImageList,
    read_images,
    whole_vectors,
)
from schn_ray.retrieval.duplicates.verify import verified_labels

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


def feature_differences(index: Path, run: Path, features: Path, count: int) -> dict[str, Any]:
    """Return 1 - cosine of the features: of copies and originals, and of the nearest others."""
    hasher, opened = schn_ray.load(run), schn_ray.open_index(index)
    table = open_rows(features)
    ids = pa.array(opened.ids(np.arange(len(opened))))
    at = pc.index_in(ids, table["id"].combine_chunks()).to_numpy()
    X = VectorColumn(table["vector"]).take(at.astype(np.int64))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    rows = np.random.default_rng(1).choice(len(opened), count, replace=False)
    copies = [
        copies_of(fetch(uri), int(row)) for row, uri in zip(rows, opened.uris(rows), strict=True)
    ]
    views = np.stack([evaluation_view(data, hasher.of_images()) for of in copies for data in of])
    F = np.concatenate(
        [np.asarray(hasher.features(views[i : i + 64]).cpu()) for i in range(0, len(views), 64)]
    )
    F = (F / np.linalg.norm(F, axis=1, keepdims=True)).reshape(count, len(KINDS), -1)
    own = 1 - np.einsum("nkd,nd->kn", F, X[rows])
    cosines = X[rows] @ X.T
    cosines[np.arange(count), rows] = -1
    result: dict[str, Any] = {
        kind: np.quantile(of_kind, [0.5, 0.9]).round(4).tolist()
        for kind, of_kind in zip(KINDS, own, strict=True)
    }
    result["nearest_other"] = (
        np.quantile(1 - cosines.max(axis=1), [0.01, 0.1, 0.5]).round(4).tolist()
    )
    for limit in (0.01, 0.02, 0.05, 0.1):
        recall = [round(float((of_kind <= limit).mean()), 3) for of_kind in own]
        false = int((1 - cosines <= limit).sum())
        result[f"at_{limit}"] = {"recall": recall, "other_images_within": false}
    return result


def of_one_code(store: Path, label: int, rows: int) -> dict[str, Any]:
    """Group images of a class as if all had one code, the worst that can happen."""
    at = np.flatnonzero(open_store(store).labels.toarray()[:, label])[:rows]
    images = read_images(ImageList(0, [f"{store}#{row}" for row in at.tolist()]))
    vectors, flat = whole_vectors(images.pixels)
    evidence = Evidence(images.contents, LIMIT, images.pixels, vectors, ~flat)
    started = time.process_time()
    labels = verified_labels(np.zeros((len(at), 8), np.uint8), 64, 0, evidence)
    seconds = time.process_time() - started
    sizes = np.unique(labels, return_counts=True)[1]
    return {
        "images_of_one_code": len(at),
        "groups": sorted(sizes[sizes > 1].tolist(), reverse=True),
        "us_a_pair": round(seconds / (len(at) * (len(at) - 1) / 2) * 1e6, 2),
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
    parser.add_argument("--feature-differences", action="store_true")
    parser.add_argument("--one-code", type=int, metavar="LABEL")
    asked = parser.parse_args()
    if asked.one_code is not None:
        print(json.dumps(of_one_code(asked.store, asked.one_code, 3_000)), flush=True)
        return
    run, index = indexed(asked.store, asked.features, asked.out, asked.bits, asked.rows)
    if asked.feature_differences:
        result = feature_differences(index, run, asked.features, asked.plant)
        print(json.dumps({"features": result}), flush=True)
        return
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
