"""What the driver of a job holds and reads, by the row: the part that does not spread over nodes.

    OMP_NUM_THREADS=1 python -m benchmarks.scale.driver

Nothing is encoded. A made-up listing goes through the code that ``encode`` runs in the driver's own
process: listing, what is sent to workers, receipts, repeated ids, manifest. Memory is resident
memory of a process of its own for each kind of source; the figure a row is the difference between
the two sizes, so that what Python and its imports take does not count. docs/scaling.md says what
follows for 1e8 and 1e9 rows; ``benchmarks.scale.listing`` puts a listing through a whole job.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import operator
import pickle
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.scale.listing import SHARD_ROWS, MadeUpFiles
from schn_ray.core.directories import new_directory
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import decode, evaluation_view
from schn_ray.data.shards import job
from schn_ray.data.shards.listing_pieces import PieceFiles
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.pending import ShardTask, find_pending
from schn_ray.data.shards.receipts import (
    Receipt,
    UnitReceipt,
    receipt_from_bytes,
    receipt_to_bytes,
)
from schn_ray.data.shards.rows import Shard, units_of
from schn_ray.data.shards.streamed_listing import StreamedListing
from schn_ray.data.sources import webdataset as tars
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig
from schn_ray.retrieval.code_files import CodeFiles, code_batch

FILE_ROWS = 65_536
STAMP = "104857-1760000000000000000"
PARTS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=(200_000, 600_000))
    parser.add_argument("--table-rows", type=int, nargs=2, default=(10**7, 10**8))
    parser.add_argument("--shards", type=int, nargs=2, default=(500, 3_000))
    arguments = parser.parse_args()
    for layout, sizes in (("files", arguments.rows), ("tables", arguments.table_rows)):
        few, many = (in_a_process(held, layout, n) for n in sizes)
        for what in few:
            each = (many[what] - few[what]) / (sizes[1] - sizes[0])
            print(f"{layout}, {what}: {each:.3g} a row; {many[what]:.4g} of {sizes[1]:,} rows")
    print("\n".join(in_a_process(parts)))
    print(in_a_process(reads_of_a_tar))
    print(in_a_process(decoding), flush=True)
    few, many = (in_a_process(handed_out, n) for n in arguments.shards)
    more = arguments.shards[1] - arguments.shards[0]
    print(f"Ray: {more / (many[0] - few[0]):,.0f} shards/s that do nothing, 2 workers")
    print(f"Ray: {(many[1] - few[1]) / more:,.0f} bytes of the driver's peak a shard")


def in_a_process(work: Callable[..., Any], *args: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


# --- a listing


def held(layout: str, rows: int) -> dict[str, float]:
    """Return what a driver holds after each step, in bytes, and CPU seconds that it took.

    First what a new directory takes; then an update in which every file has moved to another shard,
    so that all of them have to be matched by name.
    """
    steps: dict[str, float] = {}
    clock = time.process_time()

    def step(name: str) -> None:
        nonlocal clock
        steps[f"bytes held after {name}"] = resident()
        steps[f"seconds of {name}"] = time.process_time() - clock
        clock = time.process_time()

    source = MadeUpFiles(rows) if layout == "files" else MadeUpTables(rows)
    steps["bytes at the start"] = resident()
    with tempfile.TemporaryDirectory() as name:
        pieces = PieceFiles(name)
        with StreamedListing(lambda last: source.shards(), pieces) as listing:
            listing.is_quick()
            listing.write_pieces()
            listing.wait()
            step("listing, and its pieces")
            sent = sum(len(pickle.dumps(ShardTask(**vars(shard)))) for shard in listing)
            step("reading them again, and pickling")
    steps["bytes sent to workers"] = sent
    count = -(-rows // SHARD_ROWS)

    def of_another_shard(number: int) -> Receipt:
        (shard,) = islice(source.shards_after(Shard(count - 2 - number, 0)), 1)
        return receipt(replace(shard, number=number))

    pending = find_pending(source.shards(), range(count), of_another_shard, SHARD_ROWS)
    step("the plan of an update that matches every file")
    assert not pending.tasks
    steps["bytes at the peak"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return steps


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class MadeUpTables:
    """Parquet files of 65,536 rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def shards(self) -> Iterator[Shard]:
        return self.shards_after(Shard(-1, 0))

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        for start in range((last.number + 1) * SHARD_ROWS, self._rows, SHARD_ROWS):
            file, first = divmod(start, FILE_ROWS)
            name, rows = f"year=2026/part-{file:05}.parquet", min(SHARD_ROWS, self._rows - start)
            yield Shard(start // SHARD_ROWS, rows, first, (name,), 1 << 32, (STAMP,))


def receipt(shard: Shard) -> Receipt:
    done = tuple(UnitReceipt(unit, unit.rows) for unit in units_of(shard))
    written = receipt_to_bytes(Receipt(shard.number, done, "0" * 64, 1 << 18))
    return receipt_from_bytes(written)  # strings of its own, as when it is read from a file


# --- parts


def parts() -> list[str]:
    """Write parts of image files; say what a row takes, and how fast a driver goes through them."""
    with tempfile.TemporaryDirectory() as name:
        shards = list(MadeUpFiles(PARTS * SHARD_ROWS).shards())
        part_files = PartFiles(name, CodeFiles())
        sizes = {}
        for bits, relaxed in ((64, False), (64, True), (128, False)):
            sizes[bits, relaxed] = written(part_files, shards, bits, relaxed)
        lines = [
            f"part, {bits} bits{', relaxed' * relaxed}: {size:.1f} bytes a row"
            for (bits, relaxed), size in sizes.items()
        ]
        rows = PARTS * SHARD_ROWS

        def reading() -> None:
            for _ in part_files.totals(part_files.numbers(), {}):
                pass

        lines.append(f"receipts of image files: {seconds(reading) / rows * 1e6:.2f} us a row")
        numbers = part_files.numbers()
        repeated = seconds(lambda: job._quarantine_repeated_ids(part_files, numbers))
        lines.append(f"repeated ids: {repeated / rows * 1e6:.2f} us a row")
        written(part_files, list(MadeUpTables(rows).shards()), 64, False)
        lines.append(f"receipts of tables: {seconds(reading) / PARTS * 1e6:,.0f} us a part")
    with tempfile.TemporaryDirectory() as name:
        with new_directory(Path(name, "codes"), "codes", {}, {}) as draft:
            written(PartFiles(str(draft.path), CodeFiles()), shards, 64, False)
        manifest = (Path(name, "codes") / "manifest.json").stat().st_size / PARTS
    lines.append(f"manifest: {manifest:,.0f} bytes a part")
    block = bytes(1 << 26)
    hashing = seconds(lambda: hashlib.sha256(block).digest())
    lines.append(f"SHA-256: {len(block) / hashing / 1e6:,.0f} MB/s")
    return lines


def written(part_files: PartFiles, shards: list[Shard], bits: int, relaxed: bool) -> float:
    """Write parts; return the bytes of a row, its share of the receipt included."""
    rng, size = np.random.default_rng(0), 0
    for shard in shards:
        n = shard.rows
        first = shard.number * SHARD_ROWS
        ids = [f"class-{i % 1000:03}/photo-{i:08}.jpg" for i in range(first, first + n)]
        codes = code_batch(
            ids,
            [f"s3://bucket/photos/{id}" for id in ids],
            rng.integers(0, 256, (n, bits // 8), np.uint8),
            rng.integers(0, 256, (n, 32), np.uint8),
            rng.random((n, bits if relaxed else 0), np.float32).astype(np.float16),
        )
        done = tuple(UnitReceipt(unit, unit.rows) for unit in units_of(shard))
        done_receipt = part_files.write(shard.number, [codes], done)
        files: dict[str, tuple[str, int]] = {}
        list(part_files.totals([done_receipt.number], files))
        size += sum(size for _, size in files.values())
    return size / sum(shard.rows for shard in shards)


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of some work: the machine may have other work, too."""
    started = time.process_time()
    work()
    return time.process_time() - started


# --- images


def decoding() -> str:
    """Decode photos as ``prepare`` does, and as ``encode`` does for a network that sees 224."""
    from benchmarks.support.untrained import write_photos

    with tempfile.TemporaryDirectory() as name:
        path = write_photos(Path(name, "photos.parquet"), 400, (500, 375))
        images = pq.read_table(path)["image"].to_pylist()
    view = build_backbone(BackboneConfig(name="alexnet")).preprocessing
    assert view is not None
    whole = seconds(lambda: [decode(image, 10**8) for image in images])
    viewed = seconds(lambda: [evaluation_view(image, view) for image in images])
    return (
        f"photos of 500 x 375, {sum(map(len, images)) / len(images):,.0f} bytes: "
        f"{len(images) / whole:,.0f} decoded/s, {len(images) / viewed:,.0f} views of 224/s"
    )


# --- Ray


def handed_out(count: int) -> tuple[float, int]:
    """Have actors do nothing with shards; return the seconds, and the driver's peak memory."""
    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.cluster.session import ray_session

    shards = MadeUpTables(count * SHARD_ROWS).shards()
    with ray_session():
        run, started = RayShards("handing out", 2), time.perf_counter()
        assert sum(1 for _ in run(operator.attrgetter("number"), shards)) == count
        took = time.perf_counter() - started
    return took, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- tars


class Counted(io.FileIO):
    """A file that counts how often it is read: at a URI, each is a request."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        Counted.reads += 1
        return super().read(-1 if size is None else size)


def reads_of_a_tar() -> str:
    """Count reads a sample, each an image and a .cls: of the driver's listing, of the worker."""

    @contextmanager
    def opened(place: str) -> Iterator[Counted]:
        with Counted(place) as file:
            yield file

    tars._opened = opened  # type: ignore[assignment]
    samples = 500
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "photos.tar")
        with tarfile.open(path, "w") as tar:
            for i in range(samples):
                for member, data in ((f"{i:06}.jpg", bytes(5000)), (f"{i:06}.cls", b"7")):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        source = tars.WebDataset(str(path), SourceConfig())
        (shard,) = source.shards()
        listing, Counted.reads = Counted.reads, 0
        tars.samples_of.cache_clear()  # a worker is another process
        assert sum(1 for _ in source.read(shard)) == samples
    return (
        f"tar: {listing / samples:.1f} reads a sample to list, {Counted.reads / samples:.1f} to "
        "read, each a request where the tar is at a URI"
    )


if __name__ == "__main__":
    main()
