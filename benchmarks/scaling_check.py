"""Compare what scaling.py says of a small job with that job.

    OMP_NUM_THREADS=1 python benchmarks/scaling_check.py cifar10.parquet [--rows 20000]

A bare loop, in as many processes as there will be actors, gives the rate of a core of this machine,
before and after; scaling.py computes the job's time from it; between, the job is done, on a local
Ray that has started already. Times are of the whole call of ``encode``, and of its work between the
first parts and the last ones, without the start of the actors.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from encode import rate, side_by_side
from scaling import Rates, duration, layouts
from scaling import encode as predicted
from untrained import write_model

from schn_ray.cluster.session import ray_session
from schn_ray.cluster.shards import RayShards
from schn_ray.config import EncodeConfig, SourceConfig
from schn_ray.encode import encode
from schn_ray.sources import open_source

SHARD_ROWS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="INPUT=VALUE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ray_session():
        folder = Path(name)
        model, source = write_model(folder / "small", "small"), folder / "images.parquet"
        images = pq.read_table(asked.cifar10, columns=["image"]).slice(0, asked.rows)
        pq.write_table(images, source, row_group_size=SHARD_ROWS)
        for workers in asked.workers:
            before = side_by_side(model, source, workers)
            whole, between = done(model, source, workers, folder / f"codes-{workers}")
            loop = (before + side_by_side(model, source, workers)) / 2
            settings = [
                *("cpu_nodes=1", "latency=0", "stream_mb=1e9", "node_gbit=1e9"),
                *(f"cpu_cores={workers}", f"cpu_rate={loop / workers}", f"shard_rows={SHARD_ROWS}"),
                f"image_bytes={source.stat().st_size / asked.rows}",
            ]
            rates = Rates([*settings, *asked.set])
            job = predicted(rates, asked.rows, layouts(rates)[-1], gpu=False)
            print(
                f"{workers} worker(s): loop {loop:,.0f} images/s; predicted "
                f"{duration(job.seconds)} of workers ({job.bottleneck}), "
                f"{duration(job.driver)} of the driver alone; "
                f"measured {duration(asked.rows / between)} at the rate between first and last "
                f"parts, {duration(whole)} in all",
                flush=True,
            )


def done(model: Path, source: Path, workers: int, out: Path) -> tuple[float, float]:
    """Encode; return the seconds of all, and the images a second once actors are at work."""
    config = EncodeConfig(source=SourceConfig(shard_rows=SHARD_ROWS))
    opened, started = open_source(str(source), config.source), time.perf_counter()
    encode(opened, model, out, config, RayShards("encoding", workers))
    return time.perf_counter() - started, rate(out, workers)


if __name__ == "__main__":
    main()
