"""A listing of made-up files of any size through a whole job on Ray: when it begins, what it holds.

    OMP_NUM_THREADS=1 python -m benchmarks.scale.listing 1e5 1e6 1e7

The source makes up names, sizes and stamps, without a disk; a worker makes up a code for each. What
is left is what a driver does: listing, its pieces, feeding two workers, receipts, repeated ids,
counts and the manifest. Each size has a driver of its own. At each step are printed the seconds
since Ray has started, and the driver's peak of resident memory until then.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.job import JobResult, OutputRequest, ShardJob, run_shard_job
from schn_ray.data.shards.listing_pieces import PieceFiles
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.pending import UnwrittenShards
from schn_ray.data.shards.receipts import Receipt, UnitReceipt
from schn_ray.data.shards.repeated_ids import repeated_ids
from schn_ray.data.shards.rows import BadRow, Row, Shard, shards_after, units_of
from schn_ray.data.shards.streamed_listing import StreamedListing
from schn_ray.data.shards.units import PartUnits
from schn_ray.retrieval.code_files import CodeFiles, code_batch

SHARD_ROWS, FOLDER_ROWS = 2048, 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", type=float, nargs="+")
    parser.add_argument("--workers", type=int, default=2, help="0: this process, without Ray")
    parser.add_argument(
        "--no-parts",
        action="store_true",
        help="without workers: list, hand out, compare ids",
    )
    parser.add_argument("--disk", type=Path, help="where the parts lie for the time")
    arguments = parser.parse_args()
    for files in arguments.files:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            if arguments.no_parts:
                pool.apply(without_parts, (int(files),))
            else:
                pool.apply(measured, (int(files), arguments.workers, arguments.disk))


@dataclass(frozen=True)
class MadeUpFiles:
    """Image files of a folder for every thousand of them, with names of 28 letters."""

    count: int
    kind: str = "folder"
    location: str = "made-up"

    def shards(self) -> Iterator[Shard]:
        return self._shards_from(0)

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        return self._shards_from(last.number + 1)

    def _shards_from(self, number: int) -> Iterator[Shard]:
        for first in range(number * SHARD_ROWS, self.count, SHARD_ROWS):
            rows = range(first, min(first + SHARD_ROWS, self.count))
            names = tuple(f"class-{i // FOLDER_ROWS:05}/photo-{i:08}.jpg" for i in rows)
            stamps = tuple(f"104857-17600000{i:011}" for i in rows)
            size = 104_857 * len(rows)
            yield Shard(first // SHARD_ROWS, len(rows), 0, names, size, stamps)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        raise NotImplementedError


def codes_of(units: PartUnits) -> Iterator[pa.RecordBatch]:
    """Make up codes, without reading rows one by one."""
    names = units.shard.files
    rng = np.random.default_rng(units.shard.number)
    codes = rng.integers(0, 256, (len(names), 8), np.uint8)
    digests = rng.integers(0, 256, (len(names), 32), np.uint8)
    uris = [f"s3://bucket/{name}" for name in names]
    yield code_batch(list(names), uris, codes, digests, np.zeros((len(names), 0), np.float16))
    units.receipts.extend(UnitReceipt(unit, 1) for unit in units_of(units.shard))


def measured(files: int, workers: int, disk: Path | None) -> None:
    """Run the job, and print its steps."""
    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.cluster.session import ray_session

    def mapped(function: Callable[[Any], Any], shards: Iterable[Any]) -> Iterator[Any]:
        results = RayShards("making up", workers) if workers else map_locally
        all_listed, parts = False, files // SHARD_ROWS + 1
        for done, result in enumerate(results(function, shards), 1):
            if done == 1 or done % (parts // 10 or 1) == 0:
                step(f"part {done:,} of {parts:,}")
            if not all_listed and getattr(shards, "all_listed", False):
                all_listed = True
                step("all listed")
            yield result

    def finish(_: Path, result: JobResult) -> dict[str, Any]:
        step("all counted")
        return {"rows": result.listed, "encoded": result.written}

    session = ray_session() if workers else nullcontext()
    with tempfile.TemporaryDirectory(dir=disk) as folder, session:
        out = Path(folder, "codes")
        job = ShardJob("encode", MadeUpFiles(files), PartFiles(str(out), CodeFiles()), codes_of)
        request = OutputRequest("codes", {}, {"source": "made-up"})
        step = steps(files)
        step("begun")
        manifest = run_shard_job(job, out, request, SourceConfig(), mapped, finish)
        step(f"finished, {time.process_time():.1f} s of the driver's CPU")
    assert manifest.counts == {"rows": files, "encoded": files}


def without_parts(files: int) -> None:
    """List, hand out shards that nobody works on, and compare made-up ids; print the steps."""
    step, source = steps(files), MadeUpFiles(files)

    def ids(number: int, _: str) -> list[str]:
        first = number * SHARD_ROWS
        return [f"photo-{row:08}" for row in range(first, min(first + SHARD_ROWS, files))]

    def no_receipt(number: int) -> Receipt:
        raise AssertionError(number)

    with tempfile.TemporaryDirectory() as folder:
        pieces = PieceFiles(folder)
        step("begun")
        with StreamedListing(lambda last: shards_after(source, last), pieces) as listing:
            listing.is_quick()
            listing.write_pieces()
            sent, parts = 0, 0
            for parts, shard in enumerate(UnwrittenShards(listing, (), no_receipt, False), 1):
                sent += len(pickle.dumps(shard))
                if parts == 1:
                    step("first shard handed out")
        step(f"all {parts:,} shards handed out")
    assert not list(repeated_ids(range(parts), ids))
    step(f"ids compared, {time.process_time():.1f} s of CPU")


def steps(files: int) -> Callable[[str], None]:
    """Return a function that prints a step, the seconds until then, and the peak."""
    size, started = f"{files:.0e}".replace("+0", ""), time.perf_counter()

    def step(name: str) -> None:
        print(f"{size}: {name} after {time.perf_counter() - started:.1f} s; {peak()}", flush=True)

    return step


def peak() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} MB at most"


if __name__ == "__main__":
    from benchmarks.scale import listing  # workers cannot import what is in __main__

    listing.main()
