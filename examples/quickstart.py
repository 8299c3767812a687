"""Handwritten digits, from images to a search, in this process: no Ray, about a minute.

python examples/quickstart.py [DIR] [SETTING=VALUE ...]
"""

import sys
from pathlib import Path

import schn_ray


def main(folder: Path, settings: list[str]) -> None:
    """Prepare, train, evaluate, encode, index and search; print each result."""
    store = schn_ray.prepare("digits", folder / "store")
    print(store.text())
    run = schn_ray.train(store, folder / "run", preset="digits", settings=settings)
    print(schn_ray.evaluate(run, store).text())
    codes = schn_ray.encode("digits", run, folder / "codes")
    index = schn_ray.build_index(codes, folder / "index")
    print(schn_ray.search(index, id=["digit-0007"], k=5))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"), sys.argv[2:])
