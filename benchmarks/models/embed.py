"""``embed`` against a bare loop of PyTorch, and ``embed`` under kills.

    OMP_NUM_THREADS=1 python -m benchmarks.models.embed speed cifar10.parquet
    OMP_NUM_THREADS=1 python -m benchmarks.models.embed kills cifar10.parquet

``speed``: EfficientNet-Lite0 at 128 pixels, one process, one thread. The loop decodes images that
lie in memory and passes them through the same network in batches of the same size. Loop and embed
take turns, as a shared machine swings; seconds are CPU time, without that of building the network
and of the first part. ``kills``: at 32 pixels, SIGKILL ten times at random moments, each time the
same call goes on; then ids and SHA-256 of all parts are compared with those of an undisturbed call.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.support.efficientnet_lite0 import write_weights
from schn_ray.core.atomic_files import sha256_file
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import evaluation_view, normalise
from schn_ray.data.shards.map_shards import Piece, T
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.stored import ROW_FILES, map_rows
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import EmbedConfig, embed_source

BATCH, SHARD_ROWS = 64, 128


def config_of(weights: Path, size: int, shard_rows: int = SHARD_ROWS) -> EmbedConfig:
    """Return settings of ``embed``."""
    backbone = BackboneConfig(
        name="timm:tf_efficientnet_lite0", weights=str(weights), image_size=size
    )
    source = SourceConfig(shard_rows=shard_rows)
    return EmbedConfig(backbone=backbone, source=source, batch_size=BATCH)


def part_of(parquet: Path, out: Path, rows: int) -> Path:
    """Write the first rows of a Parquet file as another."""
    pq.write_table(pq.read_table(parquet).slice(0, rows), out, row_group_size=SHARD_ROWS)
    return out


def looped(images: list[bytes], config: EmbedConfig) -> float:
    """Return images a second of CPU time of the bare loop."""
    backbone = build_backbone(config.backbone)
    network, preprocessing = backbone.module.eval(), backbone.preprocessing
    assert preprocessing is not None
    started, vectors = 0.0, []
    for start in range(0, len(images), BATCH):
        if start == SHARD_ROWS:  # what came before warms up, as the first part does
            started = time.process_time()
        chunk = images[start : start + BATCH]
        views = np.stack([evaluation_view(image, preprocessing) for image in chunk])
        with torch.inference_mode():
            vectors.append(network(normalise(torch.from_numpy(views), preprocessing)).half())
    return (len(images) - SHARD_ROWS) / (time.process_time() - started)


def embedded(source: Path, out: Path, config: EmbedConfig) -> float:
    """Return images a second of CPU time of ``embed`` after its first part."""
    stamps = []

    def timed(function: Callable[[Piece], T], shards: list[Piece]) -> Iterable[T]:
        for shard in shards:
            result = function(shard)
            stamps.append((time.process_time(), shard.rows))
            yield result

    embed_source(open_source(str(source), config.source), out, config, timed)
    rows = sum(rows for _, rows in stamps[1:])
    return rows / (stamps[-1][0] - stamps[0][0])


def speed(parquet: Path, folder: Path, rows: int, rounds: int) -> None:
    """Let loop and embed take turns, and print the ratio of each embed to the loops around it."""
    torch.set_num_threads(1)
    config = config_of(write_weights(folder / "weights.safetensors"), 128)
    source = part_of(parquet, folder / "images.parquet", rows)
    images = pq.read_table(source, columns=["image"])["image"].to_pylist()
    loops, ours = [looped(images, config)], []
    for turn in range(rounds):
        ours.append(embedded(source, folder / f"features-{turn}", config))
        loops.append(looped(images, config))
    around = [(before + after) / 2 for before, after in pairwise(loops)]
    ratios = [each / loop for each, loop in zip(ours, around, strict=True)]
    print(
        f"{rows:,} images: loop {median(loops):.1f} images/s, embed {median(ours):.1f} images/s, "
        f"ratio {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


def embed_quietly(source: Path, out: Path, config: EmbedConfig) -> None:
    """Embed in a process of its own."""
    torch.set_num_threads(1)
    embed_source(open_source(str(source), config.source), out, config)


def contents(out: Path) -> tuple[list[str], dict[str, str]]:
    """Return the ids, and SHA-256 of each part."""
    ids = map_rows(out)["id"].to_pylist()
    return ids, {file.name: sha256_file(file) for file in sorted(out.glob(ROW_FILES))}


def kills(parquet: Path, folder: Path, rows: int, times: int, seed: int) -> None:
    """Kill and go on, and compare with an undisturbed call."""
    rng = random.Random(seed)
    context = multiprocessing.get_context("spawn")
    config = config_of(write_weights(folder / "weights.safetensors"), 32, shard_rows=32)
    source = part_of(parquet, folder / "images.parquet", rows)
    whole, killed = folder / "whole", folder / "killed"
    embed_quietly(source, whole, config)
    ids, parts = contents(whole)
    moments: list[int] = []
    share = len(parts) // (times + 1) - 1
    while len(moments) < times:
        process = context.Process(target=embed_quietly, args=(source, killed, config))
        process.start()
        before = len(list(killed.glob(ROW_FILES)))
        wanted = before + rng.randint(0, share)
        while process.is_alive() and len(list(killed.glob(ROW_FILES))) < wanted:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        process.kill()
        process.join()
        moments.append(len(list(killed.glob(ROW_FILES))))
        if process.exitcode == 0:
            raise SystemExit(f"it ended before kill {len(moments)}: give more --rows")
    embed_quietly(source, killed, config)
    same_ids, same_parts = contents(killed) == (ids, parts), contents(killed)[1] == parts
    print(
        f"{rows:,} images in {len(parts)} parts, killed {times} times when {moments} parts were "
        f"there: ids equal: {same_ids}, {len(set(ids)):,} of them; bytes of all parts equal: "
        f"{same_parts}"
    )


def main() -> None:
    """Measure speed, or kill."""
    parser = argparse.ArgumentParser(description="embed against a bare loop, and under kills.")
    parser.add_argument("what", choices=["speed", "kills"])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.what == "speed":
            speed(asked.parquet, Path(name), asked.rows, asked.rounds)
        else:
            kills(asked.parquet, Path(name), asked.rows, asked.kills, asked.seed)


if __name__ == "__main__":
    main()
