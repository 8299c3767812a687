"""Two commands from photos to a search page: how long the first takes, and how good the result is.

    python -m benchmarks.retrieval.build_album cifar10.parquet --out DIR

Draws 200 images of each class of a Parquet file, writes them at 256 pixels, every other one as
JPEG, in a folder a class and again in one folder, and runs ``schn-ray build`` on both. Then it adds
20 photos, removes 10, and builds again; and once more, with nothing to do. Each call is a process
of its own, whose seconds of CPU are counted. May be killed and run again; what goes on counts only
its own seconds.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from schn_ray.evaluation.results import read_figures
from schn_ray.evaluation.verdict import share_of_features

PIXELS, EACH, NEW, GONE = 256, 200, 20, 10


def main() -> None:
    """Print a line for each call, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parquet", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["labelled", "unlabelled"])
    arguments = parser.parse_args()
    for kind in ("labelled", "unlabelled"):
        if arguments.only in (None, kind):
            photos, album = arguments.out / kind, arguments.out / f"album-{kind}"
            if not photos.exists():
                write_photos(arguments.parquet, photos, kind == "labelled")
            build(photos, album, f"{kind}: built")
            print(figures_line(album), flush=True)
            change(photos)
            build(photos, album, f"{kind}: {NEW} added, {GONE} removed")
            print(figures_line(album), flush=True)
            build(photos, album, f"{kind}: nothing to do")


def build(photos: Path, album: Path, what: str) -> None:
    """Run the command, and print what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, "-m", "schn_ray", "build", photos, "--out", album]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))
    wall = time.perf_counter() - started
    print(f"{what}: {seconds:.0f} s of CPU, {wall:.0f} s on {os.cpu_count()} cores")
    print("\n".join(f"    {line}" for line in answer.stdout.splitlines() if line), flush=True)


def figures_line(album: Path) -> str:
    """Return the figures that the bar is for."""
    figures = read_figures(album / "evaluation")
    if figures.map is not None and figures.controls is not None:
        share, cosine = share_of_features(figures), figures.controls.cosine
        assert cosine is not None
        return f"  mAP {figures.map:.4f}, features by cosine {cosine.mean:.4f}, ratio {share:.3f}"
    recalls = figures.controls.recall if figures.controls else ()
    return "  " + ", ".join(f"{each.name} {each.model.mean:.4f}" for each in recalls)


def images(parquet: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield class, number within the class, and the bytes of each image."""
    seen = Counter[int]()
    for batch in pq.ParquetFile(parquet).iter_batches(1_000, columns=["image", "label"]):
        for row in batch.to_pylist():
            yield row["label"], seen[row["label"]], row["image"]
            seen[row["label"]] += 1


def write_photos(parquet: Path, photos: Path, labelled: bool) -> None:
    """Write photos of each class, and beside the folder those that are added later."""
    written, later = 0, photos.with_name(f"{photos.name}-later")
    for label, number, image in images(parquet):
        if number >= EACH + NEW // 10:
            continue
        name = f"{number:03}.{'jpg' if number % 2 else 'png'}"
        below = Path(str(label), name) if labelled else Path(f"{label}-{name}")
        file = (photos if number < EACH else later) / below
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(image)).convert("RGB").resize((PIXELS, PIXELS))
        picture.save(file, quality=92)
        written += 1
        if written == 10 * EACH + NEW:
            return


def change(photos: Path) -> None:
    """Move the later photos in, and remove the first of the others; once."""
    later = photos.with_name(f"{photos.name}-later")
    if not later.exists():
        return
    for file in sorted(photos.rglob("*.*"))[:GONE]:
        file.unlink()
    for file in sorted(later.rglob("*.*")):
        file.rename(photos / file.relative_to(later))
    later.rename(later.with_name(f"{later.name}-done"))


if __name__ == "__main__":
    main()
