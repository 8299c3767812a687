"""Search for settings with Ray Tune, then train with the best.

python examples/tune.py PHOTOS DIR TRIALS [SETTING=VALUE ...]
"""

import sys
from pathlib import Path

import schn_ray


def main(photos: Path, folder: Path, trials: int, settings: list[str]) -> None:
    """Try settings on validation rows; train with the winner and measure it on the queries."""
    store = schn_ray.prepare(photos, folder / "store", settings={"validation_share": 0.2})
    study = schn_ray.tune(store, "quick", trials, folder / "search", settings=settings)
    print(study.text())
    run = schn_ray.train(store, folder / "run", config=f"{study}/best.yaml")
    print(schn_ray.evaluate(run, store).text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
