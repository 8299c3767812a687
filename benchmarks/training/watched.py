"""What showing and tracking cost a training step: the same run with and without them, in turns.

    python benchmarks/training/watched.py

The network is the smallest there is, so that a step takes milliseconds: a larger one hides more.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import schn_ray
from schn_ray.models.model_files import fingerprint
from schn_ray.training import tracking
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

TURNS = 3
SETTINGS = (
    "backbone.base_channels=4",
    "schedule.iterations=2",
    "schedule.samples=500",
    "schedule.batch_size=32",
    "schedule.epochs=1",
)


class Nothing:
    """A tracker that takes everything."""

    id, iteration = "one", None

    def __init__(self, _: object) -> None: ...

    def log(self, *_: Any) -> None: ...

    def end(self, _: bool) -> None: ...


def main() -> None:
    tracking.TRACKERS["none"] = Nothing
    tracking.require_tracker = lambda _: None
    sys.modules["schn_ray.training.run"].require_tracker = lambda _: None  # type: ignore[attr-defined]
    config = train_config("digits", None, SETTINGS)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        folder = Path(name)
        schn_ray.prepare("digits", folder / "store")
        models = set()
        for turn in range(TURNS + 1):
            for watched in (False, True):
                out = folder / f"{turn}-{watched}"
                began = time.process_time()
                more = {"track": "none", "shown": True} if watched else {}
                train_locally(config, folder / "store", out, **more)  # type: ignore[arg-type]
                if turn:  # the first warms up
                    seconds[watched].append(time.process_time() - began)
                models.add(fingerprint(out))
    assert len(models) == 1, "the models differ"
    ratios = [b / a for a, b in zip(seconds[False], seconds[True], strict=True)]
    steps = 2 * -(-500 // 32)
    print(f"CPU time of a step without: {median(seconds[False]) / steps * 1e3:.2f} ms")
    print(f"ratio with to without: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print("the models are equal to the bit")


if __name__ == "__main__":
    main()
