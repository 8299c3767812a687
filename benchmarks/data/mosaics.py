"""Multi-label images that can be made offline: mosaics of CIFAR-10 with the label sets of photos.

    python -m benchmarks.data.mosaics cifar10.parquet mirflickr_labels.txt --out mosaics.parquet

A mosaic is a grid of 2 x 2 or 3 x 3 pictures at 96 pixels. Its label set is a real row of
MIRFlickr-25K: of the 38 concepts (a line an image, a 0 or 1 a concept) the ten with the most images
are taken, and the most frequent is called as CIFAR's first class, and so on. So which labels come
together, and how often, is as in photos; what they look like is as in CIFAR-10. Each label has at
least one picture; the other places repeat labels of the set. Rows with none or all of the ten are
left out.

The column ``split`` has 1,000 queries (``test``), 5,000 training rows (``train``) and a gallery
(``database``): prepare it with ``--protocol listed``. Mosaics are made in parts of 500 that share
no picture: each part has the same share of the pictures of every class for itself. So no picture of
a query is in a training row or in the gallery, nor one of a training row in the gallery; and the
last 500 training rows share none with the other 4,500. Within a part, a picture comes again when
those of its class are used up. The column ``pictures`` has the rows of CIFAR-10's file.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

PIXELS, CLASSES, PART = 96, 10, 500
QUERIES, TRAINING = 1_000, 5_000
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("label", pa.list_(pa.string())),
        ("pictures", pa.list_(pa.int32())),
        ("image", pa.binary()),
    ]
)


def main() -> None:
    """Write the file; the same arguments give the same bytes of every image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path, help="CIFAR-10, columns image and label")
    parser.add_argument("labels", type=Path, help="a line an image, 0 or 1 for each concept")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.images % PART or arguments.images <= QUERIES + TRAINING:
        parser.error(f"--images must be a multiple of {PART} above {QUERIES + TRAINING:,}")
    rng = np.random.default_rng(arguments.seed)
    sets = drawn_sets(arguments.labels, arguments.images, rng)
    cifar = pq.read_table(arguments.parquet, columns=["image", "label"])
    pools = dealt(cifar["label"].to_numpy(), len(sets) // PART, rng)
    unfinished = arguments.out.with_suffix(".unfinished")
    with pq.ParquetWriter(unfinished, SCHEMA) as writer:
        for part, pool in enumerate(pools):
            rows = mosaics(part * PART, sets[part * PART : (part + 1) * PART], pool, cifar, rng)
            writer.write_table(pa.Table.from_pylist(list(rows), SCHEMA))
    unfinished.replace(arguments.out)
    sizes = sets.sum(axis=1)
    print(f"{len(sets):,} mosaics, {sizes.mean():.2f} labels each, at most {sizes.max()}")
    for name, share in zip(NAMES, sets.mean(axis=0), strict=True):
        print(f"  {name}: {share:.3f} of the images")


def drawn_sets(labels: Path, images: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw label sets [images, 10] from the rows that have 1 to 9 of the ten, all equally often."""
    rows = np.loadtxt(labels, dtype=np.uint8).astype(bool)
    most = np.argsort(-rows.sum(axis=0), kind="stable")[:CLASSES]
    rows = rows[:, most]
    rows = rows[rows.any(axis=1) & ~rows.all(axis=1)]
    turns = -(-images // len(rows))
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(turns)])
    return rows[order[:images]]


def dealt(
    classes: NDArray[np.int64], parts: int, rng: np.random.Generator
) -> list[list[NDArray[np.int64]]]:
    """Deal the pictures: for each part, and each class, the rows that only this part may use."""
    by_class = [
        np.array_split(rng.permutation(np.flatnonzero(classes == c)), parts) for c in range(CLASSES)
    ]
    return [[pictures[part] for pictures in by_class] for part in range(parts)]


def mosaics(
    first: int,
    sets: NDArray[np.bool_],
    pool: list[NDArray[np.int64]],
    cifar: pa.Table,
    rng: np.random.Generator,
) -> Iterator[dict[str, object]]:
    """Yield the rows of one part, whose first has the number ``first``."""
    endless = [_in_turns(pictures, rng) for pictures in pool]
    for number, label_set in enumerate(sets, start=first):
        labels = np.flatnonzero(label_set)
        side = 3 if len(labels) > 4 or rng.random() < 0.5 else 2
        chosen = np.concatenate([labels, rng.choice(labels, side**2 - len(labels))])
        pictures = [next(endless[c]) for c in rng.permutation(chosen)]
        yield {
            "id": f"mosaic-{number:05}",
            "split": _role(number),
            "label": [NAMES[c] for c in labels],
            "pictures": pictures,
            "image": _drawn([cifar["image"][row].as_py() for row in pictures], side),
        }


def _role(number: int) -> str:
    if number < QUERIES:
        return "test"
    return "train" if number < QUERIES + TRAINING else "database"


def _in_turns(pictures: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (int(row) for row in rng.permutation(pictures))


def _drawn(pictures: list[bytes], side: int) -> bytes:
    size = PIXELS // side
    mosaic = Image.new("RGB", (PIXELS, PIXELS))
    for place, data in enumerate(pictures):
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        row, column = divmod(place, side)
        mosaic.paste(
            picture.resize((size, size), Image.Resampling.BICUBIC), (column * size, row * size)
        )
    written = io.BytesIO()
    mosaic.save(written, "JPEG", quality=95, subsampling=0)
    return written.getvalue()


if __name__ == "__main__":
    main()
