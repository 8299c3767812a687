"""Kill encoding at random moments and run the same command: the codes must be the undisturbed ones.

    python -m benchmarks.scale.encode_kills --moments 10

SIGKILL hits the driver, an actor, or a node of a test cluster of a head and two nodes. After each,
the set of rows is compared with that of an undisturbed run, every id must be there once, and at
most one part a worker that was finished before may have been written again: the one that it had not
told of yet.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.support.processes import end, marked, started, started_at
from benchmarks.support.untrained import write_model, write_photos
from schn_ray.core.manifest import is_finished
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

ROWS, SHARD_ROWS, WORKERS = 1200, 30, 2
KINDS = ("driver", "actor", "node")


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), arguments.seed)
        for kind in arguments.kinds:
            for moment in range(arguments.moments):
                print(f"{kind} {moment + 1}: {job.disturbed(kind)}", flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=10, help="kills of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


class Job:
    """Photos, a model, and the rows of an undisturbed run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.model = write_model(folder / "model", "small", 64)
        self.photos = write_photos(folder / "photos.parquet", ROWS, (64, 64))
        self.out = folder / "codes"
        config = EncodeConfig(source=SourceConfig(shard_rows=SHARD_ROWS))
        whole = folder / "whole"
        encode_source(open_source(str(self.photos), config.source), self.model, whole, config)
        self.wanted = rows(whole)

    def disturbed(self, kind: str) -> str:
        """Start a run, kill, run again until it is finished; return what happened."""
        self.out = self.folder / uuid.uuid4().hex
        share = self.random.random()
        with started(self._command(kind)) as (process, mark):
            shards = ROWS // SHARD_ROWS
            wait_for(lambda: len(parts(self.out)) >= share * (shards - 4), process)
            time.sleep(self.random.random() * 0.2)
            before = parts(self.out)
            kill(kind, process, mark)
            process.wait(300)
        finished_alone = is_finished(self.out)
        if not finished_alone:
            with started(self._command("driver")) as (process, _):
                assert process.wait(300) == 0, process.returncode
        again = self._checked(before)
        return f"killed after {len(before)} of {shards} parts; {again} written again; " + (
            "the run went on by itself" if finished_alone else "the same command finished it"
        )

    def _checked(self, before: dict[str, int]) -> int:
        """Return how many of the finished parts were written again: at most one a worker.

        One whose worker dies between writing a part and telling of it is done again.
        """
        found = rows(self.out)
        assert len({row[0] for row in found}) == len(found) == ROWS, "an id is missing or twice"
        assert found == self.wanted, "other rows than undisturbed"
        after = parts(self.out)
        again = sum(after[name] != written for name, written in before.items())
        assert again <= WORKERS, f"{again} finished parts were written again"
        return again

    def _command(self, kind: str) -> list[str]:
        arguments = [str(self.photos), "--model", str(self.model), "--out", str(self.out)]
        arguments += ["--workers", str(WORKERS), "--set", f"source.shard_rows={SHARD_ROWS}"]
        if kind == "node":
            return [sys.executable, "-m", "benchmarks.support.two_nodes", *arguments]
        return [sys.executable, "-m", "schn_ray", "encode", *arguments]


def rows(out: Path) -> list[tuple[str, bytes]]:
    table = [
        row for part in sorted(out.glob("data/part-*")) for row in pq.read_table(part).to_pylist()
    ]
    return sorted((row["id"], row["code"]) for row in table)


def parts(out: Path) -> dict[str, int]:
    """Name -> when it was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("data/part-*.parquet")}


def kill(kind: str, process: subprocess.Popen[bytes], mark: str) -> None:
    if kind == "driver":
        process.kill()
    elif kind == "actor":
        end(min(marked(mark, lambda line: line.startswith("ray::ShardWorker")), default=0))
    else:
        # the newest raylet: nodes start after the head
        raylets = marked(mark, lambda line: line.split("\0")[0].endswith("/raylet"))
        end(max(raylets, key=lambda pid: started_at(pid)))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


if __name__ == "__main__":
    main()
