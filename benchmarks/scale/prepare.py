"""Kill ``prepare`` at random moments and run it again: the store must be the undisturbed one.

    python -m benchmarks.scale.prepare cifar10.parquet --rows 1000000 --kills 10

``--here`` does without Ray, shard by shard in one process. CIFAR-10 is repeated under other ids,
in files of its 60,000. SIGKILL hits the driver; its Ray goes with it. After each, no row that was
finished before may be written again. In the end, fingerprint and counts must be those of an
undisturbed run, and peak memory (anonymous, of the driver and of the largest worker) is compared
with that of a tenth of the rows.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.support.processes import marked, started
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store

SHARD_ROWS = 5_000


def main() -> None:
    arguments = parsed()
    if arguments.only:
        return prepare_here(*arguments.only)
    if not arguments.cifar10.is_file():
        sys.exit(f"{arguments.cifar10} is not there: name CIFAR-10 as a Parquet file")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = arguments.rows // 10, arguments.rows
        for rows in (few, many):
            write_source(folder / f"source-{rows}", arguments.cifar10, rows)
        small = whole(folder, few, "few", arguments.here)
        large = whole(folder, many, "whole", arguments.here)
        for what in ("driver", "worker"):
            if not small[what]:
                continue  # without Ray, there are no workers
            ratio = large[what] / small[what]
            print(f"{what}: {small[what]:,} MiB, then {large[what]:,} MiB: {ratio:.2f} times")
        if arguments.kills:
            moments = random.Random(arguments.seed)
            disturbed(folder, many, arguments.kills, moments, arguments.here)
    return None


def write_source(source: Path, cifar10: Path, rows: int) -> None:
    source.mkdir()
    table = pq.read_table(cifar10, columns=["image", "label"])
    order = np.random.default_rng(0).permutation(len(table))  # it is sorted by class
    table = table.take(pa.array(order))
    for number, start in enumerate(range(0, rows, len(table))):
        part = table.slice(0, min(len(table), rows - start))
        ids = pa.array([f"{number:03}-{row:05}" for row in range(len(part))])
        # images of their own: decoders pass over what follows a JPEG's end
        images = pc.binary_join_element_wise(part["image"], ids.cast(pa.binary()), b"")
        part = part.set_column(part.column_names.index("image"), "image", images)
        path = source / f"{number:03}.parquet"
        pq.write_table(part.append_column("id", ids), path, row_group_size=2048)


def prepare_here(source: str, out: str) -> None:
    config = PrepareConfig(source=SourceConfig(shard_rows=SHARD_ROWS))
    prepare_store(open_source(source, config.source), config, out)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data" / "cifar10.parquet"
    parser.add_argument("cifar10", type=Path, nargs="?", default=default)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--here", action="store_true", help="without Ray")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def command(folder: Path, rows: int, name: str, here: bool) -> list[str]:
    source, out = str(folder / f"source-{rows}"), str(folder / name)
    if here:
        return [sys.executable, "-m", "benchmarks.scale.prepare", "--only", source, out]
    settings = ["--set", f"source.shard_rows={SHARD_ROWS}", "--workers", "2"]
    return [sys.executable, "-m", "schn_ray", "prepare", source, "--out", out, *settings]


def whole(folder: Path, rows: int, name: str, here: bool) -> dict[str, int]:
    """Prepare undisturbed; return the peaks in MiB."""
    found, begun = {"driver": 0, "worker": 0}, time.monotonic()
    with started(command(folder, rows, name, here)) as (process, mark):
        while process.poll() is None:
            found["driver"] = max(found["driver"], anonymous(process.pid))
            workers = marked(mark, lambda line: line.startswith("ray::"))
            found["worker"] = max([found["worker"], *map(anonymous, workers)])
            time.sleep(0.5)
        assert process.returncode == 0, process.returncode
    counts = manifest(folder / name)["counts"]
    assert counts["rows"] == rows, counts
    seconds = time.monotonic() - begun
    print(f"{rows:,} rows in {seconds:,.0f} s with start-up; MiB: {found}", flush=True)
    return found


def disturbed(folder: Path, rows: int, kills: int, moments: random.Random, here: bool) -> None:
    shards = -(-rows // SHARD_ROWS)
    wanted = sorted(moments.sample(range(shards), kills))
    before: dict[str, int] = {}
    for at in wanted:
        with started(command(folder, rows, "killed", here)) as (process, _):
            wait_for(folder / "killed", at, process)
            time.sleep(moments.random() / 2)
            process.kill()
            process.wait(300)
        now = states(folder / "killed")
        assert before.items() <= now.items(), "rows that were finished were written again"
        before = now
        print(f"killed after {len(now)} of {shards} files", flush=True)
    with started(command(folder, rows, "killed", here)) as (process, _):
        assert process.wait(900) == 0, process.returncode
    assert before.items() <= states(folder / "killed").items(), "finished rows written again"
    one, other = manifest(folder / "whole"), manifest(folder / "killed")
    assert one["fingerprint"] == other["fingerprint"], "another store than undisturbed"
    assert one["counts"] == other["counts"]
    print(f"the same store after {kills} kills: {other['fingerprint']}")


def states(store: Path) -> dict[str, int]:
    """File -> when it was written, of rows that have a receipt."""
    done = {path.stem for path in store.glob("receipts/*.receipt")}
    return {p.name: p.stat().st_mtime_ns for p in store.glob("rows-*.arrow") if p.stem in done}


def wait_for(store: Path, files: int, process: subprocess.Popen[bytes]) -> None:
    while len(states(store)) < files:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)


def manifest(store: Path) -> dict[str, dict[str, int]]:
    return dict(json.loads((store / "manifest.json").read_text()))


def anonymous(pid: int) -> int:
    """Return a process's memory that is not the page cache's, in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon"))
    return max((int(line[1]) // 1024 for line in lines), default=0)


if __name__ == "__main__":
    main()
