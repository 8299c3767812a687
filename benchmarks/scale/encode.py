"""Images a second of encoding on Ray against a bare loop: same decoding, network and threads.

    python -m benchmarks.scale.encode cifar10.parquet

The loop decodes and codes images that lie in memory, in one process, on one thread, without Ray.
With W workers the loop runs W times side by side, so that both share the same cores. Rates are
after start-up: of Ray, from the W-th part to the one before the last W parts. Loop and Ray take
turns, as a shared machine swings; each encoding is compared with the loops before and after it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.support.untrained import write_model, write_photos
from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.session import ray_session
from schn_ray.core.bits import pack, sign
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import evaluation_view
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.hasher import Hasher, load
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

BATCH = 64


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = []
        if "small" in arguments.only and not arguments.cifar10.is_file():
            print(f"{arguments.cifar10} is not there: the case 'small at 32 px' is left out")
        elif "small" in arguments.only:
            small = write_model(folder / "small", "small")
            cases.append(("small at 32 px", small, arguments.cifar10, 1024))
        if "alexnet" in arguments.only:
            photos = write_photos(folder / "photos.parquet", 1536, (500, 375))
            alexnet = write_model(folder / "alexnet", "alexnet")
            cases.append(("alexnet at 224 px", alexnet, photos, 64))
        with ray_session():
            for what, model, source, shard_rows in cases:
                for workers in arguments.workers:
                    turns = Turns(model, source, shard_rows, workers, folder)
                    show(what, workers, *turns.taken(arguments.rounds))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[3] / "shared" / "data" / "cifar10.parquet"
    parser.add_argument("cifar10", type=Path, nargs="?", default=default)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=["small", "alexnet"])
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def show(what: str, workers: int, loops: list[float], ours: list[float]) -> None:
    around = [(before + after) / 2 for before, after in pairwise(loops)]
    ratios = [mine / loop for mine, loop in zip(ours, around, strict=True)]
    print(
        f"{what}, {workers} worker(s): loop {median(loops):,.0f} images/s, "
        f"encode {median(ours):,.0f} images/s, ratio {median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


@dataclass(frozen=True)
class Turns:
    model: Path
    source: Path
    shard_rows: int
    workers: int
    folder: Path

    def taken(self, rounds: int) -> tuple[list[float], list[float]]:
        """Return images a second of the loop, once more than rounds, and of encode between them."""
        loops, ours = [side_by_side(self.model, self.source, self.workers)], []
        for turn in range(rounds):
            ours.append(self._encoded(turn))
            loops.append(side_by_side(self.model, self.source, self.workers))
        return loops, ours

    def _encoded(self, turn: int) -> float:
        config = EncodeConfig(source=SourceConfig(shard_rows=self.shard_rows), batch_size=BATCH)
        out = self.folder / f"{self.model.name}-{self.workers}-{turn}"
        opened = open_source(str(self.source), config.source)
        encode_source(opened, self.model, out, config, RayShards("encoding", self.workers))
        return rate(out, self.workers)


def rate(out: Path, workers: int) -> float:
    parts = sorted(out.glob("data/part-*"), key=lambda part: part.stat().st_mtime_ns)
    between = parts[workers : len(parts) - workers]
    rows = sum(pq.read_metadata(part).num_rows for part in between)
    first, last = (part.stat().st_mtime_ns for part in (parts[workers - 1], between[-1]))
    return float(rows / (last - first) * 1e9)


def side_by_side(model: Path, source: Path, workers: int) -> float:
    """Run the loop in as many processes; return their images a second, all together."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=bare_loop, args=(model, source, barrier, found))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    rates = [found.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def bare_loop(model: Path, source: Path, barrier: Any, found: Any) -> None:
    torch.set_num_threads(1)
    hasher = load(model)
    images = pq.read_table(source, columns=["image"])["image"].to_pylist()[:20_000]
    code(hasher, images[: 2 * BATCH])  # warm
    barrier.wait()
    started = time.perf_counter()
    code(hasher, images)
    found.put(len(images) / (time.perf_counter() - started))


def code(hasher: Hasher, images: list[bytes]) -> np.ndarray:
    codes = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        views = np.stack([evaluation_view(image, hasher.of_images()) for image in batch])
        codes.append(pack(sign(hasher.relaxed(views))))
    return np.concatenate(codes)


if __name__ == "__main__":
    main()
