"""Exact evaluation against the usual loop of argsort, and at a million gallery rows.

    python -m benchmarks.evaluation.metrics speed --codes EVALUATION --store STORE
    python -m benchmarks.evaluation.metrics large --labels mirflickr_labels.txt [--workers 2]

``speed``: 1,000 queries x 59,000 gallery codes of 48 bits, one thread, CPU time, in turns; on
random codes, and on those of an evaluated model (48 bits, protocol cifar10-59k) if one is named.
``large``: 10,000 x 1,000,000 codes on Ray, with real label rows drawn at random; wall time, and
the most memory that driver and workers had together.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.histograms import distance_histograms

BITS, QUERIES, GALLERY = 48, 1_000, 59_000
Side = tuple[NDArray[np.uint8], csr_array]


def usual_loop(queries: Side, gallery: Side) -> float:
    """mAP as published code computes it: a product, an argsort, a mean of precisions."""
    signs = [
        np.unpackbits(c, axis=1, bitorder="little").astype(np.float32) * 2 - 1
        for c in (queries[0], gallery[0])
    ]
    Y_q, Y_g = (labels.toarray().astype(np.float32) for labels in (queries[1], gallery[1]))
    total = 0.0
    for code, labels in zip(signs[0], Y_q, strict=True):
        distances = 0.5 * (code.size - code @ signs[1].T)
        relevant = (labels @ Y_g.T > 0).astype(np.float32)[np.argsort(distances)]
        ranks = np.flatnonzero(relevant) + 1.0
        total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else 0.0
    return total / len(signs[0])


def exact(queries: Side, gallery: Side) -> float:
    return mean(average_precision(distance_histograms(*queries, *gallery, BITS)))


def cpu_seconds(work: Callable[[], float]) -> tuple[float, float]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def speed(name: str, queries: Side, gallery: Side, repeats: int) -> dict[str, object]:
    loops, ours = [], []
    for _ in range(repeats):  # in turns, so that both see the same machine
        seconds, by_loop = cpu_seconds(lambda: usual_loop(queries, gallery))
        loops.append(seconds)
        seconds, exactly = cpu_seconds(lambda: exact(queries, gallery))
        ours.append(seconds)
    return {
        "codes": name,
        "loop_s": round(float(np.median(loops)), 2),
        "exact_s": round(float(np.median(ours)), 3),
        "times_faster": round(float(np.median(np.array(loops) / np.array(ours))), 1),
        "map_by_loop": round(by_loop, 4),
        "map_exact": round(exactly, 4),
        "distinct": len(np.unique(gallery[0], axis=0)),
    }


def random_sides() -> tuple[Side, Side]:
    rng = np.random.default_rng(0)

    def side(rows: int) -> Side:
        codes = rng.integers(0, 256, (rows, BITS // 8), dtype=np.uint8)
        return codes, label_matrix(rng.integers(0, 10, (rows, 1)).tolist(), 10)

    return side(QUERIES), side(GALLERY)


def trained_sides(evaluation: Path, store_path: Path) -> tuple[Side, Side]:
    from schn_ray.core.artefacts import open_artefact
    from schn_ray.data.store.reader import open_store
    from schn_ray.retrieval.code_files import packed_codes

    store, measured = open_store(store_path), open_artefact(evaluation, "evaluation")
    names = sorted(name for name in measured.manifest.files if name.startswith("codes/data/part-"))
    tables = [pq.read_table(measured.file(name)) for name in names]
    codes = np.concatenate([packed_codes(table) for table in tables])
    query, gallery = store.rows("query"), store.rows("gallery")
    return (codes[query], store.labels[query]), (codes[gallery], store.labels[gallery])


class Peak(threading.Thread):
    """The most memory that this process and its children have at once, pages shared once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.done.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                name = ""
                try:
                    name = " ".join(process.cmdline())
                    if process.pid == me.pid or "ray::" in name:
                        total += process.memory_full_info().pss
                except (psutil.Error, OSError):
                    continue
            self.most = max(self.most, total)


def large(labels_file: Path, workers: int, bits: int, part_rows: int) -> dict[str, object]:
    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.cluster.session import ray_session
    from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes, count_relevant

    rows = csr_array(np.loadtxt(labels_file, dtype=np.uint8))
    rng = np.random.default_rng(0)
    sides = []
    for n in (10_000, 1_000_000):
        # a code a label set with every bit flipped at 10 %: near what a trained model gives
        chosen = rng.integers(0, rows.shape[0], n)
        centres = np.random.default_rng(1).random((rows.shape[0], bits)) < 0.5
        codes = np.empty((n, bits // 8), np.uint8)
        for start in range(0, n, 50_000):
            some = chosen[start : start + 50_000]
            flipped = centres[some] ^ (rng.random((len(some), bits)) < 0.1)
            codes[start : start + 50_000] = np.packbits(flipped, axis=1, bitorder="little")
        sides.append(LabelledCodes(np.arange(n), codes, rows[chosen]))
    with ray_session():
        peak = Peak()
        peak.start()
        started = time.monotonic()
        queries, gallery = sides
        h = count_relevant(queries, gallery, bits, part_rows, RayShards("counting", workers))
        counted = time.monotonic() - started
        score = mean(average_precision(h.plain))
        seconds = time.monotonic() - started
        peak.done.set()
    return {
        "queries": len(sides[0]),
        "gallery": len(sides[1]),
        "bits": bits,
        "workers": workers,
        "parts": -(-len(sides[1]) // part_rows),
        "counting_s": round(counted, 1),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak.most / 1e9, 2),
        "map": round(score, 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speed", "large"])
    parser.add_argument("--codes", type=Path, help="an evaluation of a 48-bit model")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part-rows", type=int, default=250_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: both sides are measured on one thread")
    if asked.what == "large":
        print(json.dumps(large(asked.labels, asked.workers, BITS, asked.part_rows)))
    else:
        print(json.dumps(speed("random", *random_sides(), asked.repeats)), flush=True)
        if asked.codes:
            sides = trained_sides(asked.codes, asked.store)
            print(json.dumps(speed(str(asked.codes.name), *sides, asked.repeats)))
