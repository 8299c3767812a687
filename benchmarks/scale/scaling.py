"""What 1e8 or 1e9 images would take: time, money, storage, memory, and what is the bottleneck.

    python -m benchmarks.scale.scaling
    python -m benchmarks.scale.scaling --images 3e8 --set cpu_nodes=64 --set cpu_node_hour=0.25
    python -m benchmarks.scale.scaling --inputs

Arithmetic, no more: nothing is run. Each input below is *measured* (docs/scaling.md says by which
script), *ours* (how the code works, or a setting of it), or an *example*: a price, a network or a
machine that you have to put your own in for. All that is printed is computed from these.

A job's time is that of its slowest part, since parts overlap on many nodes and with the listing,
plus the time in which only the driver works. Start-up of nodes and of Ray is not in it, nor what a
busy machine or a throttling store takes away.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

MEASURED, OURS, EXAMPLE = "measured", "ours", "example"
HOUR, MONTH_GB = 3600.0, 1e9
INDEX_ROWS = 2**32 - 1


class Input(NamedTuple):
    value: float
    origin: str
    what: str


INPUTS = {
    # the images
    "image_bytes": Input(110_000, EXAMPLE, "bytes of an image file, on average"),
    "bits": Input(64, EXAMPLE, "bits of a code"),
    # the machines
    "cpu_nodes": Input(16, EXAMPLE, "nodes without a GPU, as in cluster.yaml"),
    "cpu_cores": Input(16, EXAMPLE, "cores of each; one actor a core"),
    "cpu_node_hour": Input(0.30, EXAMPLE, "price of each by the hour"),
    "gpu_nodes": Input(8, EXAMPLE, "nodes with one GPU, as in cluster.yaml"),
    "gpu_cores": Input(16, EXAMPLE, "cores of each; its actors share the GPU"),
    "gpu_node_hour": Input(0.80, EXAMPLE, "price of each by the hour"),
    "gpu_rate": Input(5_000, EXAMPLE, "images/s of a GPU; ResNet-50 on an H200: 3,484 to 9,523"),
    "head_hour": Input(0.20, EXAMPLE, "price of the head by the hour, where the driver is"),
    # network and object store
    "node_gbit": Input(10, EXAMPLE, "network of a node, Gbit/s, that lasts"),
    "latency": Input(0.020, EXAMPLE, "seconds until the first byte of a request's answer"),
    "stream_mb": Input(80, EXAMPLE, "MB/s of one stream"),
    "requests_s": Input(50_000, EXAMPLE, "reads/s that the store answers over all prefixes"),
    "read_price": Input(0.0004, EXAMPLE, "price of 1,000 reads"),
    "write_price": Input(0.005, EXAMPLE, "price of 1,000 writes, or of listings of 1,000 names"),
    "gb_month": Input(0.023, EXAMPLE, "price of a GB for a month in the object store"),
    "file_gb_month": Input(0.10, EXAMPLE, "price of a GB for a month on the shared file system"),
    # how we work
    "shard_rows": Input(2048, OURS, "rows of a shard, and so of a part: source.shard_rows"),
    "group_rows": Input(1024, EXAMPLE, "rows of a Parquet row group, read by a request a column"),
    "table_rows": Input(65_536, EXAMPLE, "rows of a Parquet file"),
    "list_names": Input(1000, OURS, "names that the store returns by request"),
    # rates, one core of the machine of benchmarks/README.md
    "decode_rate": Input(614, MEASURED, "images/s: decoding alone, 500 x 375"),
    "view_rate": Input(330, MEASURED, "images/s: decoding and resizing to 224, 500 x 375"),
    "cpu_rate": Input(37, MEASURED, "images/s: decoding, resizing and AlexNet at 224"),
    "shards_rate": Input(83, MEASURED, "shards/s handed to two workers, on two cores in all"),
    # the driver
    "driver_held": Input(271e6, MEASURED, "bytes the driver holds: Python, Ray, two pieces"),
    "part_held": Input(1400, MEASURED, "bytes it holds a part: its names and hashes"),
    "match_row": Input(780, MEASURED, "bytes an update holds a row that moved to another shard"),
    "file_row_s": Input(1.6e-6, MEASURED, "its seconds a row of image files: pieces, pickling"),
    "id_disk": Input(12, OURS, "bytes a row on its disk, to find repeated ids"),
    "receipt_row_s": Input(2.3e-6, MEASURED, "its seconds to read a row's receipt: image files"),
    "receipt_part_s": Input(54e-6, MEASURED, "its seconds to read a part's receipt: tables"),
    "ids_row_s": Input(1.0e-6, MEASURED, "its seconds a row to find repeated ids"),
    "sha_mb": Input(158, MEASURED, "MB/s of SHA-256, for the manifest"),
    "manifest_part": Input(286, MEASURED, "bytes of the manifest a part"),
    # what is stored, and searched
    "part_row": Input(73.6, MEASURED, "bytes of a part a row: 64 bits, ids of 28 letters"),
    "index_row": Input(89, MEASURED, "bytes of an index a row: 64 bits, 1e7 rows"),
    "index_peak": Input(127, MEASURED, "bytes of memory a row while an index is built"),
    "index_s": Input(3.6e-6, MEASURED, "seconds a row to build an index, one core"),
    "search_rate": Input(4278, MEASURED, "queries/s over search_rows codes, k 10, one core"),
    "search_rows": Input(1e7, MEASURED, "of which search_rate is"),
}


class Rates:
    """The inputs by name, and some of them set otherwise."""

    def __init__(self, settings: list[str]) -> None:
        for name, (default, _, _) in INPUTS.items():
            setattr(self, name, default)
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in INPUTS:
                raise SystemExit(f"{name}: no such input; --inputs lists them")
            setattr(self, name, float(value))

    def __getattr__(self, name: str) -> float:
        raise AttributeError(name)


class Layout(NamedTuple):
    """How images lie: requests of a worker an image, and of the driver that lists."""

    name: str
    reads: float
    listing: float


def layouts(r: Rates) -> list[Layout]:
    return [
        Layout("an object an image", 1, 1 / r.list_names),
        Layout("tars with .cls", 6, 4),
        # bytes and id, by row group; and the footer, which the driver reads, too
        Layout("Parquet", 2 / r.group_rows + 2 / r.shard_rows, 2 / r.table_rows),
    ]


class Job(NamedTuple):
    """What a job takes: seconds, money, requests, and what it waits for."""

    what: str
    seconds: float
    driver: float
    money: float
    requests: float
    bottleneck: str


def encode(r: Rates, n: float, layout: Layout, gpu: bool) -> Job:
    nodes, cores = (r.gpu_nodes, r.gpu_cores) if gpu else (r.cpu_nodes, r.cpu_cores)
    compute = 1 / r.view_rate if gpu else 1 / r.cpu_rate
    reading = layout.reads * r.latency + r.image_bytes / (1e6 * r.stream_mb)
    # an actor reads, decodes and codes one image after another
    waits = "reading" if reading > compute else "decoding" if gpu else "decoding and the network"
    rates = {
        f"actors: {waits}": nodes * cores / (compute + reading),
        "the nodes' network": nodes * r.node_gbit * 1e9 / 8 / r.image_bytes,
        "the store's requests": r.requests_s / layout.reads,
        "handing out shards": r.shards_rate * r.shard_rows,
    }
    rates["the driver's listing"] = 1 / (layout.listing * r.latency + r.file_row_s)
    if gpu:
        rates["GPUs"] = nodes * r.gpu_rate
    bottleneck = min(rates, key=rates.__getitem__)
    seconds = n / rates[bottleneck]
    before_and_after = driver(r, n, layout)
    price = nodes * (r.gpu_node_hour if gpu else r.cpu_node_hour) + r.head_hour
    requests = n * (layout.reads + layout.listing)
    money = seconds / HOUR * price + before_and_after / HOUR * r.head_hour
    money += requests / 1000 * r.read_price
    what = f"{layout.name}, {'GPU' if gpu else 'CPU'}"
    if before_and_after > seconds:
        bottleneck = "the driver"
    return Job(what, seconds, before_and_after, money, requests, bottleneck)


def driver(r: Rates, n: float, layout: Layout) -> float:
    """Return the seconds in which only the driver works; workers may have gone by then."""
    shards, by_file = n / r.shard_rows, layout.name == "an object an image"
    receipts = shards * r.receipt_part_s + (n * r.receipt_row_s if by_file else 0)
    return receipts + n * r.ids_row_s + n * r.part_row / (1e6 * r.sha_mb)


def prepare(r: Rates, n: float) -> Job:
    nodes = r.cpu_nodes
    parquet = layouts(r)[-1]
    moved = 2 * r.image_bytes / (1e6 * r.stream_mb)  # in and out, one after the other
    rates = {
        "actors": nodes * r.cpu_cores / (1 / r.decode_rate + moved + parquet.reads * r.latency),
        "the nodes' network": nodes * r.node_gbit * 1e9 / 8 / r.image_bytes,
    }
    bottleneck = min(rates, key=rates.__getitem__)
    seconds, alone = n / rates[bottleneck], driver(r, n, parquet)
    requests, written = n * parquet.reads, 2 * n / r.shard_rows
    money = seconds / HOUR * (nodes * r.cpu_node_hour + r.head_hour)
    money += requests / 1000 * r.read_price + written / 1000 * r.write_price
    money += alone / HOUR * r.head_hour
    return Job("prepare, Parquet", seconds, alone, money, requests + written, bottleneck)


def tables(r: Rates, n: float) -> Iterator[str]:
    yield f"### {n:.0e} images\n".replace("+0", "")
    yield from encode_table(r, n)
    yield from stored_table(r, n)
    yield from driver_table(r, n)


def encode_table(r: Rates, n: float) -> Iterator[str]:
    yield "| job | workers | driver alone | requests | cost | bottleneck |"
    yield "| --- | --- | --- | --- | --- | --- |"
    jobs = [encode(r, n, layout, gpu) for layout in layouts(r) for gpu in (False, True)]
    for job in [*jobs, prepare(r, n)]:
        what = job.what if job.what.startswith("prepare") else f"encode, {job.what}"
        yield (
            f"| {what} | {duration(job.seconds)} | {duration(job.driver)} | {job.requests:.2g} | "
            f"{job.money:,.0f} | {job.bottleneck} |"
        )
    yield ""


def stored_table(r: Rates, n: float) -> Iterator[str]:
    yield "| what is kept | size | a month |"
    yield "| --- | --- | --- |"
    images, codes, index = n * r.image_bytes, n * r.part_row, n * r.index_row
    yield f"| the images | {size(images)} | {images / MONTH_GB * r.gb_month:,.0f} |"
    yield f"| their codes | {size(codes)} | {codes / MONTH_GB * r.file_gb_month:,.0f} |"
    yield f"| an index | {size(index)} | {index / MONTH_GB * r.file_gb_month:,.0f} |"
    yield ""
    yield "| index and search, one machine | |"
    yield "| --- | --- |"
    yield f"| indexes needed, of {INDEX_ROWS:,} rows at most | {-(-n // INDEX_ROWS):.0f} |"
    yield f"| building, one core | {duration(n * r.index_s)} |"
    yield f"| memory while building | {size(n * r.index_peak)} |"
    rate = r.search_rate * r.search_rows / n
    yield f"| queries/s of a core, if the same share of codes is looked at | {rate:,.2g} |"
    yield ""


def driver_table(r: Rates, n: float) -> Iterator[str]:
    shards = n / r.shard_rows
    yield "| the driver | image files | Parquet |"
    yield "| --- | --- | --- |"
    yield f"| shards, and files in the directory of codes | {shards:,.0f} | {shards:,.0f} |"
    held = size(r.driver_held + shards * r.part_held)
    yield f"| its memory | {held} | {held} |"
    yield f"| its memory in an update that moves every file | {size(n * r.match_row)} | {held} |"
    ids = size(n * r.id_disk)
    yield f"| its disk, to find repeated ids | {ids} | {ids} |"
    manifest = size(shards * r.manifest_part)
    yield f"| the manifest | {manifest} | {manifest} |"
    yield ""


def duration(seconds: float) -> str:
    for unit, name, most in ((1, "s", 120), (60, "min", 120), (HOUR, "h", 72), (86_400, "days", 0)):
        if seconds < unit * most or not most:
            return f"{seconds / unit:,.1f} {name}"
    raise AssertionError(seconds)


def size(data: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if data >= unit:
            return f"{data / unit:,.1f} {name}"
    return f"{data / 1e3:,.1f} kB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=float, nargs="+", default=[1e8, 1e9])
    parser.add_argument("--set", action="append", default=[], metavar="INPUT=VALUE")
    parser.add_argument("--inputs", action="store_true", help="list the inputs, as a table")
    asked = parser.parse_args()
    rates = Rates(asked.set)
    if asked.inputs:
        print("| input | value | | |\n| --- | --- | --- | --- |")
        for name, (_, origin, what) in INPUTS.items():
            print(f"| `{name}` | {getattr(rates, name):,.10g} | {origin} | {what} |")
        return
    for n in asked.images:
        print("\n".join(tables(rates, n)))


if __name__ == "__main__":
    main()
