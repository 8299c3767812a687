"""Random reads of 224-pixel JPEGs from a store, against reading the same files from a warm folder.

    python -m benchmarks.scale.reads --images 5000

Bytes alone, and bytes with decoding, as training reads them. Store and folder take turns, and each
ratio is that of medians: above 1, the store is faster.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.images import decode
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store

Read = Callable[[int], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        photos = write_photos(Path(name, "photos"), arguments.images)
        prepare_store(
            open_source(str(photos), SourceConfig()), PrepareConfig(), Path(name, "store")
        )
        store = open_store(Path(name, "store"))
        files = [store.uri(row) for row in range(len(store))]
        order = np.random.default_rng(0).permutation(len(store)).tolist()
        reads: dict[str, Read] = {
            "store": store.image,
            "folder": lambda row: Path(files[row]).read_bytes(),
        }
        assert all(reads["store"](row) == reads["folder"](row) for row in order)  # and all is warm
        show("bytes", reads, order, arguments.rounds, lambda image: None)
        few = order[: len(order) // 4]
        show("decoded", reads, few, arguments.rounds, lambda image: decode(image, 10**6))


def write_photos(folder: Path, count: int) -> Path:
    """Write smooth noise, which as JPEGs is about as large as photos of 224 pixels."""
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (28, 28, 3), np.uint8))
        data = io.BytesIO()
        small.resize((224, 224), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        path = folder / f"{number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.getvalue())
    return folder


def show(
    what: str,
    reads: dict[str, Read],
    order: list[int],
    rounds: int,
    use: Callable[[bytes], object],
) -> None:
    taken: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(rounds):
        for name, read in reads.items():
            begun = time.process_time()
            for row in order:
                use(read(row))
            taken[name].append(time.process_time() - begun)
    rates = {name: len(order) / statistics.median(seconds) for name, seconds in taken.items()}
    shown = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())
    print(f"{what}: {shown}; ratio {rates['store'] / rates['folder']:.2f}", flush=True)


if __name__ == "__main__":
    main()
