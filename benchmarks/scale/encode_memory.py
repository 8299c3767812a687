"""Peak memory of encoding a million images against a hundred thousand; every id once.

    python -m benchmarks.scale.encode_memory cifar10.parquet

CIFAR-10 is repeated under other ids, in files of its 60,000. The peak is the kernel's own
high-water mark (VmHWM) of the driver, and of the largest worker; Ray's object store is shared
memory, and has a fixed size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.support.processes import marked, started
from benchmarks.support.untrained import write_model

SIZES = (100_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[3] / "shared" / "data" / "cifar10.parquet"
    parser.add_argument("cifar10", type=Path, nargs="?", default=default)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    if not arguments.cifar10.is_file():
        sys.exit(f"{arguments.cifar10} is not there: name CIFAR-10 as a Parquet file")
    with tempfile.TemporaryDirectory() as name:
        peaks = [peak(Path(name), arguments.cifar10, rows) for rows in arguments.sizes]
    for what in ("driver", "worker"):
        few, *_, many = (of[what] for of in peaks)
        print(f"{what}: {few / 1024:,.0f} MiB, then {many / 1024:,.0f} MiB: {many / few:.3f} times")


def peak(folder: Path, cifar10: Path, rows: int) -> dict[str, int]:
    """Encode that many rows; return the peaks in KiB."""
    source, out = folder / f"source-{rows}", folder / f"codes-{rows}"
    write_source(source, cifar10, rows)
    model = write_model(folder / "model", "small")
    command = [sys.executable, "-m", "schn_ray", "encode", str(source), "--out", str(out)]
    command += ["--model", str(model), "--workers", "2"]
    found = {"driver": 0, "worker": 0}
    begun = time.monotonic()
    with started(command) as (process, mark):
        while process.poll() is None:
            found["driver"] = max(found["driver"], high_water(process.pid))
            workers = marked(mark, lambda line: line.startswith("ray::"))
            found["worker"] = max([found["worker"], *map(high_water, workers)])
            time.sleep(0.5)
        assert process.returncode == 0, process.returncode
    every_id_once(out, rows)
    seconds = time.monotonic() - begun
    print(f"{rows:,} images in {seconds:,.0f} s with start-up, every id once: {found}", flush=True)
    return found


def write_source(source: Path, cifar10: Path, rows: int) -> None:
    source.mkdir()
    table = pq.read_table(cifar10, columns=["image"])
    for number, start in enumerate(range(0, rows, len(table))):
        part = table.slice(0, min(len(table), rows - start))
        ids = pa.array([f"{number:03}-{row:05}" for row in range(len(part))])
        path = source / f"{number:03}.parquet"
        pq.write_table(part.append_column("id", ids), path, row_group_size=2048)


def high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM"))
    return max((int(line[1]) for line in lines), default=0)


def every_id_once(out: Path, rows: int) -> None:
    parts = sorted(out.glob("data/part-*"))
    ids = np.concatenate([pq.read_table(p, columns=["id"])["id"].to_numpy() for p in parts])
    assert len(ids) == rows, len(ids)
    assert len(np.unique(ids.astype("U9"))) == rows


if __name__ == "__main__":
    main()
