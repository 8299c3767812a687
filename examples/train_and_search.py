"""Use a trained model in an application: encode new images, search, keep the index up to date.

python examples/train_and_search.py PHOTOS DIR QUERY [SETTING=VALUE ...]
"""

import sys
from pathlib import Path

import schn_ray


def main(photos: Path, folder: Path, query: Path, settings: list[str]) -> None:
    """Train and index once; then search as an application does, with model and index opened."""
    store = schn_ray.prepare(photos, folder / "store")
    run = schn_ray.train(store, folder / "run", settings=settings)
    codes = schn_ray.encode(photos, run, folder / "codes")
    schn_ray.build_index(codes, folder / "index")

    hasher = schn_ray.load(run)
    index = schn_ray.open_index(folder / "index")
    packed = hasher.encode([query])  # uint8 [1, ceil(bits / 8)]
    matches = index.search(packed, k=5)
    for id, distance in zip(matches.ids(0), matches.distances[0], strict=True):
        print(f"{distance} bits: {id}")

    first = matches.ids(0)[0]
    print(schn_ray.change_index(folder / "index", remove=[first]).text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
