"""How much of a verb's CPU time is spent on comparing hashes before files are used.

    python -m benchmarks.scale.checking --rows 1000000

Each verb runs in a process of its own, so that nothing was compared before. The hashing is timed
thread by thread, where it is done; the rest of the verb's CPU time is what it would take without.
The last column counts the imports, too, as a command has them. Digits are small images: of larger
ones, more is work and less is hashed.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.support.digits import TINY, prepare_digits
from benchmarks.support.drawn import draw, write_codes
from schn_ray.core import artefacts, atomic_files
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.models import hasher
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index import checked_files
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.search import SearchLimits
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

_MODULES = {
    "index": "schn_ray.retrieval.index.build",
    "searched": "schn_ray.retrieval.batch_search",
    "evaluate": "schn_ray.evaluation.evaluate",
    "encode": "schn_ray.retrieval.encode, schn_ray.models.hasher",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the index")
    parser.add_argument("--bits", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_digits(folder / "store")
        print("| verb | CPU s | of these, comparing | share of the rest | as a command |")
        print("| --- | --- | --- | --- | --- |")
        measure("train, 2 iterations of `small`", train, folder)
        measure("encode 1,797 digits", encode, folder)
        measure("evaluate 1,797 digits", evaluate, folder)
        codes = draw(arguments.rows, arguments.bits, 0.05, 0)
        write_codes(folder / "drawn", codes)
        measure(f"index {arguments.rows:,} codes", index, folder)
        for queries in (100, 10_000):
            write_codes(folder / f"queries-{queries}", draw(queries, arguments.bits, 0.05, 1))
            measure(
                f"search of {queries:,} queries in {arguments.rows:,} codes",
                search(queries),
                folder,
            )


def train(folder: Path) -> None:
    lines = [f"{key}={value}" for key, value in TINY.items()]
    config = train_config("digits", None, (*lines, "schedule.iterations=2"))
    train_locally(config, folder / "store", folder / "run")


def encode(folder: Path) -> None:
    encode_source(
        open_source("digits", SourceConfig()), folder / "run", folder / "codes", EncodeConfig()
    )


def evaluate(folder: Path) -> None:
    evaluate_run(folder / "run", folder / "store", folder / "evaluation", EvaluateConfig())


def index(folder: Path) -> None:
    write_index(folder / "drawn", folder / "index")


def search(queries: int) -> Callable[[Path], None]:
    def searched(folder: Path) -> None:
        asked = folder / f"queries-{queries}"
        search_gallery([folder / "index"], asked, folder / f"found-{queries}", SearchLimits(k=10))

    return searched


def measure(name: str, verb: Callable[[Path], None], folder: Path) -> None:
    imports_s = _imports_s(_MODULES.get(verb.__name__, "schn_ray.training.run"))
    fork = multiprocessing.get_context("fork")
    seconds = fork.SimpleQueue()

    def run() -> None:
        spent = _timed_hashing()
        began = time.process_time()
        verb(folder)
        seconds.put((time.process_time() - began, sum(spent.values())))

    process = fork.Process(target=run)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} failed")
    all_s, compared_s = seconds.get()
    rest_s = all_s - compared_s
    shares = f"{compared_s / rest_s:.1%} | {compared_s / (rest_s + imports_s):.1%}"
    print(f"| {name} | {all_s:.2f} | {compared_s:.3f} | {shares} |", flush=True)


def _imports_s(module: str) -> float:
    """Return the CPU seconds of a process that only imports what a verb uses."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _timed_hashing() -> dict[int, float]:
    """Time what compares files; return thread -> CPU seconds, which grow."""
    spent: dict[int, float] = {}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                thread = threading.get_ident()
                spent[thread] = spent.get(thread, 0.0) + time.thread_time() - began

        return call

    class Hashlib:
        sha256 = staticmethod(timed(hashlib.sha256))

    artefacts.sha256_file = hasher.sha256_file = timed(atomic_files.sha256_file)
    artefacts.hashlib = Hashlib
    checked_files._digest = timed(checked_files._digest)
    return spent


if __name__ == "__main__":
    main()
