"""The same kills on Ray Data's own checkpointing and on ``encode``.

    python -m benchmarks.scale.ray_data_kills DIR --moments 10

What is repeated, lost, encoded again, read again; and how long a second start takes. Both read the
same Parquet files of small photos, run the same model on an actor (``--actors``) of one Ray that
stays up, and write Parquet. Each is killed when the same share of the rows has gone into the model:
SIGKILL of the driver, after which the same command is run again at once, or of an actor. Every row
that goes into a model, and every row that Ray Data reads in its second start, is logged as it
happens. DIR keeps the results: stopped, the same call goes on.

Ray Data runs ``read_parquet``, ``map_batches``, ``write_parquet`` with
``CheckpointConfig(id_column="id")``. ``ray-data``: its first data source, a block a file, as many
blocks as ``encode`` has parts. ``ray-data-default``: as it comes. ``ray-data-items``: the files
through ``from_items``. Ray is told of more CPUs than two (``--cpus``): with two, the second start
of Ray Data waits for ever, as its filter wants a CPU of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

# before Ray is imported: forked jobs need it to join the one that stays up
os.environ.setdefault("RAY_AUTH_MODE", "token")
import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_filter import NumpyArrayBasedCheckpointFilter

from benchmarks.support.processes import MARK, end, marked, started_at
from benchmarks.support.untrained import write_model, write_photos
from schn_ray.cluster.map_shards import RayShards
from schn_ray.core.directories import AlreadyDone
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.quarantine import QUARANTINE
from schn_ray.data.shards.rows import BadRow, Row, Shard
from schn_ray.data.sources.parquet import ParquetSource
from schn_ray.models.load import load
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

FILES, FILE_ROWS, SIZE = 40, 60, 32
ROWS = FILES * FILE_ROWS
ENGINES = ("encode", "ray-data", "ray-data-default", "ray-data-items")
KINDS = ("whole", "driver", "worker", "again")
COUNTS = ("encoded_again", "stored_encoded_again", "stored_read_again", "repeated", "lost")
LIMIT_S = 150
LOG = "log"
FORK = multiprocessing.get_context("fork")


def main() -> None:
    """Run a job, or kill jobs and print what came of it."""
    arguments = parsed()
    file = arguments.folder / "results.jsonl"
    if not (arguments.folder / "photos").exists():
        write_input(arguments.folder)
    texts = file.read_text().splitlines() if file.exists() else []
    results = [json.loads(text) for text in texts]
    with one_ray(arguments.cpus) as mark:
        began = time.monotonic()
        for share, kind, engine in trials(arguments):
            known = {(r["engine"], r["kind"], r["share"]) for r in results}
            if (engine, kind, share) in known or time.monotonic() - began > arguments.seconds:
                continue
            result = Trial(arguments.folder, engine, mark, arguments.actors).run(kind, share)
            results.append(result)
            with file.open("a") as lines_of_results:
                lines_of_results.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    print("\n".join(summary(results)))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES[:2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--moments", type=int, default=10, help="kills of each kind")
    parser.add_argument("--cpus", type=int, default=4, help="that Ray is told the machine has")
    parser.add_argument("--actors", type=int, default=1, help="that run the model")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no other job after these")
    return parser.parse_args()


@contextmanager
def one_ray(cpus: int) -> Iterator[str]:
    """Start a Ray that outlives its jobs, in its own process; yield the mark of its workers."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold_ray, args=(cpus, theirs))
    process.start()
    os.environ["RAY_ADDRESS"] = ours.recv()
    try:
        yield mark
    finally:
        ours.send("end")
        process.join()


def _hold_ray(cpus: int, pipe: Connection) -> None:
    while not ray.is_initialized():  # on a busy machine it takes more than Ray's 30 s
        with suppress(Exception):
            ray.init(address="local", num_cpus=cpus, include_dashboard=False)
    pipe.send(ray.get_runtime_context().gcs_address)
    pipe.recv()
    ray.shutdown()


def trials(arguments: argparse.Namespace) -> Iterator[tuple[float, str, str]]:
    """Yield (share, kind, engine): engines in turns; an undisturbed job and one to run again."""
    order = random.Random(0).sample(range(arguments.moments), arguments.moments)
    for turn, moment in enumerate(order):
        for kind, engine in itertools.product(arguments.kinds, arguments.engines):
            if turn < {"whole": 1, "again": 1}.get(kind, arguments.moments):
                yield (moment + 0.5) / arguments.moments, kind, engine


def write_input(folder: Path) -> None:
    """Write a model that nobody trained, and photos in files of a part each."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model", "small", SIZE)
    table = pq.read_table(write_photos(folder / "photos.parquet", ROWS, (SIZE, SIZE)))
    (folder / "photos").mkdir()
    for number in range(FILES):
        part = table.slice(number * FILE_ROWS, FILE_ROWS)
        pq.write_table(part, folder / "photos" / f"{number:03}.parquet")


# --- what is killed


def run_job(engine: str, folder: Path, out: Path, actors: int) -> None:
    """Encode the photos; killed at any moment, the same call goes on."""
    with (out / "printed.txt").open("a") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    ray.init(log_to_driver=False)
    if engine != "encode":
        encode_with_ray_data(engine, folder, out, actors)
        return
    config = EncodeConfig(source=SourceConfig(shard_rows=FILE_ROWS))
    source = LoggedPhotos(str(folder / "photos"), config.source, log_file=str(out / LOG))
    on_ray = RayShards("encoding", actors, writes=out / "codes")
    with suppress(AlreadyDone):
        encode_source(source, folder / "model", out / "codes", config, on_ray)


@dataclass(frozen=True)
class LoggedPhotos(ParquetSource):
    """The photos; every row is logged as it is read: whatever ``encode`` reads, it encodes."""

    log_file: str = ""

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read a shard's rows."""
        for row in super().read(shard):
            log(self.log_file, "model", [row.id])
            yield row


def encode_with_ray_data(engine: str, folder: Path, out: Path, actors: int) -> None:
    """Encode the photos as its documentation shows it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.use_datasource_v2 = engine == "ray-data-default"
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(out / "checkpoint"),
        checkpoint_filter_cls=LoggedFilter,
    )
    photos = str(folder / "photos")
    if engine == "ray-data-items":
        items = pq.read_table(photos).to_pylist()
        rows = ray.data.from_items(items, override_num_blocks=FILES)
    elif engine == "ray-data":
        rows = ray.data.read_parquet(photos, override_num_blocks=FILES)
    else:
        rows = ray.data.read_parquet(photos)
    coded = rows.map_batches(
        Encode,
        fn_constructor_args=(str(folder / "model"), str(out / LOG)),
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_size=FILE_ROWS,
        batch_format="pyarrow",
        num_cpus=1,
    )
    coded.write_parquet(str(out / "codes"))


class Encode:
    """The same model, as an actor of Ray Data."""

    def __init__(self, model: str, log_file: str) -> None:
        self._hasher, self._log_file = load(model), log_file

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch of photos."""
        ids = batch["id"].to_pylist()
        log(self._log_file, "model", ids)
        codes = self._hasher.encode(batch["image"].to_pylist())
        packed = [code.tobytes() for code in codes]
        return pa.table({"id": ids, "code": pa.array(packed, pa.binary(codes.shape[1]))})


class LoggedFilter(NumpyArrayBasedCheckpointFilter):  # type: ignore[misc]
    """Ray Data's filter of rows that are done; every row that was read for it is logged."""

    def filter_rows_for_block(self, block: pa.Table) -> pa.Table:
        """Return the rows of a block that are not done."""
        log_file = Path(self.ckpt_config.checkpoint_path).with_name(LOG)
        log(str(log_file), "filter", block["id"].to_pylist())
        return super().filter_rows_for_block(block)


def log(log_file: str, kind: str, ids: list[str]) -> None:
    """Append to the log in one write, so that a kill loses no line."""
    text = "".join(f"{time.time()} {kind} {id}\n" for id in ids)
    file = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, text.encode())
    os.close(file)


# --- the kills


class Trial:
    """Runs one job, kills it, sees it finished, and counts."""

    def __init__(self, folder: Path, engine: str, mark: str, actors: int) -> None:
        self._input, self._engine, self._mark, self._actors = folder, engine, mark, actors
        self._out = Path(tempfile.mkdtemp(dir=folder, prefix=f"{engine}-"))
        self._log = self._out / LOG

    def run(self, kind: str, share: float) -> dict[str, Any]:
        """Return what came of a job: counts of rows, and seconds of its last start."""
        before: list[Line] = []
        at_kill: list[str] = []
        begun, state = time.time(), "finished"
        if kind != "whole":
            begun = self._disturb(kind, share)
            before = [line for line in lines(self._log) if line.at < begun]
            at_kill = [] if kind == "worker" else stored(self._out)
        if kind != "worker":
            begun = time.time()
            state = self._finish()
        counts = self._counts(before, at_kill, begun) | {"state": state}
        if state == "finished":
            shutil.rmtree(self._out)
        return {"engine": self._engine, "kind": kind, "share": share} | counts

    def _disturb(self, kind: str, share: float) -> float:
        """Start the job; kill when a share of the rows is in the model. Return when that was."""
        if kind == "again":
            assert self._finish() == "finished"
            return time.time()
        with self._started() as process:
            self._wait_for_rows(share * ROWS, process)
            begun = time.time()
            if kind == "driver":
                process.kill()
            else:
                # Ray Data's, and ours
                names = "ray::MapWorker", "ray::ShardWorker"
                actors = marked(self._mark, lambda line: line.startswith(names))
                end(max(actors, key=started_at))
                process.join(LIMIT_S)
                assert process.exitcode == 0, process.exitcode
        return begun

    def _finish(self) -> str:
        """Run the job to its end."""
        with self._started() as process:
            process.join(LIMIT_S)
            code = process.exitcode
        if code is None:
            return f"not finished after {LIMIT_S} s"
        return "finished" if code == 0 else f"exit code {code}"

    @contextmanager
    def _started(self) -> Iterator[ForkProcess]:
        # forked, so that no start imports torch and Ray again
        job = self._engine, self._input, self._out, self._actors
        process = FORK.Process(target=run_job, args=job)
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join()

    def _wait_for_rows(self, rows: float, process: ForkProcess) -> None:
        deadline = time.monotonic() + LIMIT_S
        while len(lines(self._log)) < rows and process.exitcode is None:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    def _counts(self, before: list[Line], at_kill: list[str], begun: float) -> dict[str, Any]:
        ended, after = time.time(), [line for line in lines(self._log) if line.at > begun]
        encoded = {line.id for line in before if line.kind == "model"}
        again = [line.id for line in after if line.kind == "model"]
        read = {line.id for line in after}
        ids = stored(self._out)
        return {
            "in_model": len(encoded),
            "stored": len(at_kill),
            "encoded_again": sum(id in encoded for id in again),
            "stored_encoded_again": len(set(at_kill) & set(again)),
            "stored_read_again": len(set(at_kill) & read),
            "repeated": len(ids) - len(set(ids)),
            "lost": ROWS - len(set(ids)),
            "first_s": min((line.at for line in after if line.kind == "model"), default=ended)
            - begun,
            "took_s": ended - begun,
        }


class Line(NamedTuple):
    """A row as the log has it: when, whether the model or Ray Data's filter got it, and its id."""

    at: float
    kind: str
    id: str


def lines(log_file: Path) -> list[Line]:
    """Read a log."""
    if not log_file.exists():
        return []
    parts = (line.split() for line in log_file.read_text().splitlines())
    return [Line(float(at), kind, id) for at, kind, id in parts]


def stored(out: Path) -> list[str]:
    """Return the id of each row of the output that can be read."""
    ids: list[str] = []
    for file in (out / "codes").glob("*.parquet"):
        if file.name != QUARANTINE:
            with suppress(OSError, pa.ArrowInvalid):  # not written to its end
                ids += pq.read_table(file, columns=["id"])["id"].to_pylist()
    return ids


def summary(results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each engine and kind of kill; times as ratios to undisturbed jobs."""
    for engine, kind in itertools.product(ENGINES, KINDS):
        same = [r for r in results if (r["engine"], r["kind"]) == (engine, kind)]
        whole = [r for r in results if (r["engine"], r["kind"]) == (engine, "whole")]
        if not same:
            continue
        total = {name: sum(r[name] for r in same) for name in COUNTS}
        counts = ", ".join(f"{name} {count}" for name, count in total.items())
        ratios = ""
        if whole:
            first, took = (
                median(r[name] for r in same) / median(r[name] for r in whole)
                for name in ("first_s", "took_s")
            )
            ratios = f"; first row {first:.2f}, to the end {took:.2f} of undisturbed"
        yield f"{engine}, {kind}, {len(same)} times: {counts}{ratios}"
        states = {r["state"] for r in same} - {"finished"}
        yield from (f"  {state}" for state in sorted(states))


if __name__ == "__main__":
    main()
