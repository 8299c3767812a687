"""What rescoring brings: CIFAR-10, heads on the features of a frozen EfficientNet-Lite0.

    python -m benchmarks.retrieval.rescore_quality STORE FEATURES --out DIR

STORE and FEATURES are those of ``benchmarks.models.frozen_features --embed-only``. Trains ITQ and
schn-plus heads (preset ``frozen``) of 16, 32 and 64 bits on the features, then ranks the gallery
for 1,000 queries in the orders of ``search``: plain (by distance), ``query``, ``relaxed``,
``features``; the two by vectors of all rows, and of the nearest 100 and 1,000; and by the
unquantised cosine. mAP and precision at 10, exact under ties, with 95 % intervals over queries, and
the paired gain of mAP over plain. A head's figures are written when they are complete: the script
may be killed and run again; ``--only itq-32`` does one piece.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import schn_ray
from schn_ray.core.bits import pack, sign
from schn_ray.data.store.reader import Store, open_store
from schn_ray.evaluation.config import ControlsConfig
from schn_ray.evaluation.controls import drawn_sides, ranked_by
from schn_ray.evaluation.features import RowFeatures, given_features
from schn_ray.evaluation.metrics.average_precision import average_precision, precision_at
from schn_ray.evaluation.metrics.bootstrap import interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms
from schn_ray.evaluation.rescored import query_rankings, vector_rankings
from schn_ray.models.hasher import load_network
from schn_ray.retrieval.index.vectors import as_int8

METHODS, BITS, CANDIDATES = ("itq", "schn-plus"), (16, 32, 64), (100, 1_000)
K = 10


def labelled(store: Store, role: str) -> LabelledCodes:
    rows = store.rows(role)
    return LabelledCodes(rows, np.zeros((len(rows), 1), np.uint8), store.labels[rows])


def measured(rankings: Iterable[Histograms]) -> dict[str, np.ndarray]:
    pairs = [(average_precision(h)[0], precision_at(h, K)[0]) for h in rankings]
    values, precisions = zip(*pairs, strict=True)
    return {"map": np.array(values), "precision": np.array(precisions)}


def cosine_rankings(F: np.ndarray, G: np.ndarray, relevant: np.ndarray) -> Iterable[Histograms]:
    F, G = (X / np.linalg.norm(X, axis=1, keepdims=True) for X in (F, G))
    for query, own in zip(F, relevant, strict=True):
        yield ranked_by(G @ query, own)


def rankings_of(name: str, bits: int, store: Store, features: Path, out: Path, queries: int) -> Any:
    """Train a head, and yield (order, figures of each query)."""
    run = out / f"run-{name}-{bits}"
    settings = {"bits": bits, "seed": 0}
    schn_ray.train(store, run, method=name, preset="frozen", features=features, settings=settings)
    hasher = load_network(run)
    config = ControlsConfig(queries=queries, gallery_rows=len(store))
    asked, gallery = drawn_sides(labelled(store, "query"), labelled(store, "gallery"), config)[:2]
    rows = RowFeatures(run, store, map, given_features(features, store, hasher.spec))
    F, G = rows.of(asked.rows), rows.of(gallery.rows)
    U, V = (
        torch.cat([hasher.of_features().relaxed(x) for x in np.array_split(X, 50)]) for X in (F, G)
    )
    asked = LabelledCodes(asked.rows, pack(sign(U)), asked.labels)
    gallery = LabelledCodes(gallery.rows, pack(sign(V)), gallery.labels)
    sides = (asked.codes, asked.labels), (gallery.codes, gallery.labels)
    h = distance_histograms(*sides[0], *sides[1], bits)
    yield "plain", {"map": average_precision(h), "precision": precision_at(h, K)}
    yield "query", measured(query_rankings(U.numpy(), asked, gallery))
    stored = {"relaxed": (U.numpy(), V.numpy().astype(np.float16)), "features": (F, G)}
    for by, (X, Y) in stored.items():
        vectors = as_int8(Y.astype(np.float32))
        for most in (*CANDIDATES, None):
            counts = list[int]()

            def ranked(X: np.ndarray = X, most: int | None = most, to: list[int] = counts) -> Any:
                for ranking, count in vector_rankings(X, asked, vectors, gallery, most):  # noqa: B023
                    to.append(count)
                    yield ranking

            values = measured(ranked())
            note = "all" if most is None else f"nearest {most:,}: {np.mean(counts):,.0f}"
            yield f"{by}, {note}", values
    relevant = (asked.labels @ gallery.labels.T).toarray() > 0
    yield "cosine", measured(cosine_rankings(F, G, relevant))


def as_row(values: dict[str, np.ndarray], plain: dict[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, own in values.items():
        known = interval(own)
        row[name] = [known.mean, known.low, known.high] if known else None
    gain = paired_difference(plain["map"], values["map"])
    row["gain"] = gain and [gain.interval.mean, gain.interval.low, gain.interval.high]
    return row


def table(out: Path) -> None:
    print(f"| head | order | mAP | gain | precision at {K} |")
    print("| --- | --- | --- | --- | --- |")
    for file in sorted(out.glob("figures-*.json")):
        for order, row in json.loads(file.read_text()).items():
            spread = {n: "{:.4f} ({:.4f} to {:.4f})".format(*row[n]) for n in ("map", "precision")}
            gain = "" if order == "plain" else "{:+.4f} ({:+.4f} to {:+.4f})".format(*row["gain"])
            head = file.stem.removeprefix("figures-")
            print(f"| {head} | {order} | {spread['map']} | {gain} | {spread['precision']} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[f"{m}-{b}" for b in BITS for m in METHODS])
    parser.add_argument("--queries", type=int, default=1_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    store = open_store(asked.store)
    for name in asked.only:
        method, bits = name.rsplit("-", 1)
        file = asked.out / f"figures-{name}.json"
        if file.exists():
            continue
        rows, plain = dict[str, Any](), dict[str, np.ndarray]()
        for order, values in rankings_of(
            method, int(bits), store, asked.features, asked.out, asked.queries
        ):
            plain = plain or values
            rows[order] = as_row(values, plain)
        file.write_text(json.dumps(rows, indent=1))
    table(asked.out)


if __name__ == "__main__":
    main()
