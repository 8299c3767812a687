"""Compare what scaling.py says of a small job with that job.

    OMP_NUM_THREADS=1 python -m benchmarks.scale.scaling_check cifar10.parquet [--rows 20000]
    OMP_NUM_THREADS=1 python -m benchmarks.scale.scaling_check cifar10.parquet --workers 1 2

A bare loop gives the rate of a core of this machine, before and after; scaling.py computes a job's
time from it, and between, the job is done: in this process without Ray, in CPU seconds, since the
machine may have other work; or with ``--workers`` on a local Ray that has started already, by the
clock, against as many loops side by side. Then times are of the whole call of ``encode``, and of
its work between the first parts and the last ones, without the start of the actors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.scale.encode import code, rate, side_by_side
from benchmarks.scale.scaling import Job, Rates, layouts
from benchmarks.scale.scaling import encode as predicted
from benchmarks.support.untrained import write_model
from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.session import ray_session
from schn_ray.core.memory import keep_freed_memory
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.load import load
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

SHARD_ROWS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, source = write_model(folder / "small", "small"), folder / "images.parquet"
        images = pq.read_table(asked.cifar10, columns=["image"]).slice(0, asked.rows)
        pq.write_table(images, source, row_group_size=SHARD_ROWS)
        if not asked.workers:
            here(model, source, asked.rows, folder / "codes")
            return
        with ray_session():
            for workers in asked.workers:
                on_ray(model, source, asked.rows, workers, folder / f"codes-{workers}")


def here(model: Path, source: Path, rows: int, out: Path) -> None:
    keep_freed_memory()  # as encode does, so that the loops are as quick
    hasher, images = load(model), pq.read_table(source)["image"].to_pylist()
    code(hasher, images[:128])  # warm
    before = used(lambda: code(hasher, images))
    measured = used(lambda: done(model, source, out, map_locally))
    after = used(lambda: code(hasher, images))
    job = expected(source, rows, 1, rows / ((before + after) / 2))
    print(
        f"{rows:,} rows here, CPU seconds: the loop {before:.1f}, then {after:.1f}; predicted "
        f"{job.seconds:.1f} and {job.driver:.2f} of the driver; measured {measured:.1f}: "
        f"{measured / (job.seconds + job.driver):.2f} times"
    )


def on_ray(model: Path, source: Path, rows: int, workers: int, out: Path) -> None:
    before, began = side_by_side(model, source, workers), time.perf_counter()
    done(model, source, out, RayShards("encoding", workers))
    measured = time.perf_counter() - began
    loop = (before + side_by_side(model, source, workers)) / 2
    job = expected(source, rows, workers, loop)
    between = rows / rate(out, workers)
    print(
        f"{rows:,} rows, {workers} worker(s): loop {loop:,.0f} images/s; predicted "
        f"{job.seconds:.1f} s and {job.driver:.2f} s of the driver; measured {between:.1f} s at "
        f"the rate between first and last parts, {measured:.1f} s in all",
        flush=True,
    )


def expected(source: Path, rows: int, workers: int, loop: float) -> Job:
    """Predict, for a local file and cores of this rate."""
    machine = ["cpu_nodes=1", "latency=0", "stream_mb=1e9", "node_gbit=1e9"]
    cores = [f"cpu_cores={workers}", f"cpu_rate={loop / workers}", f"shard_rows={SHARD_ROWS}"]
    rates = Rates([*machine, *cores, f"image_bytes={source.stat().st_size / rows}"])
    return predicted(rates, rows, layouts(rates)[-1], gpu=False)


def used(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def done(model: Path, source: Path, out: Path, map_shards: MapShards) -> None:
    config = EncodeConfig(source=SourceConfig(shard_rows=SHARD_ROWS))
    encode_source(open_source(str(source), config.source), model, out, config, map_shards)


if __name__ == "__main__":
    main()
