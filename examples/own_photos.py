"""Your own photos, a folder for each class: check them, train on them, group near-duplicates.

python examples/own_photos.py PHOTOS DIR [SETTING=VALUE ...]
"""

import sys
from pathlib import Path

import schn_ray


def main(photos: Path, folder: Path, settings: list[str]) -> None:
    """Check the photos, train a model of them, and write pages and a table of duplicates."""
    folder.mkdir(parents=True, exist_ok=True)
    print(schn_ray.check(photos, html=folder / "check.html"))
    store = schn_ray.prepare(photos, folder / "store", largest_side=512)
    # by default AlexNet with ImageNet's weights, which torchvision downloads; others:
    # settings={"backbone.name": "resnet50"}, weights="resnet50.pth"
    run = schn_ray.train(store, folder / "run", settings=settings)
    schn_ray.evaluate(run, store)
    print(schn_ray.write_report(run, folder / "report.html"))
    codes = schn_ray.encode(photos, run, folder / "codes")
    print(schn_ray.duplicates(codes, folder / "duplicates.parquet", radius=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
