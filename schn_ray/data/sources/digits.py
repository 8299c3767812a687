"""scikit-learn's handwritten digits: 1,797 images of 8 x 8, part of that library: no download."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schn_ray.data.shards.rows import BadRow, Row, Shard, cut

LOCATION = "digits"


@dataclass(frozen=True)
class DigitsSource:
    """The digits as 8 x 8 PNG images, with labels ``0`` to ``9``."""

    shard_rows: int
    kind: str = "digits"
    location: str = LOCATION

    def shards(self) -> list[Shard]:
        """List all 1,797 rows."""
        runs = cut(len(_load()[1]), self.shard_rows)
        return [Shard(number, count, start) for number, (start, count) in enumerate(runs)]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Yield the shard's rows, encoded as PNG."""
        labels = _load()[1]
        for i in range(shard.start, shard.start + shard.rows):
            yield Row(f"digit-{i:04}", digit(i), (str(labels[i]),), f"{LOCATION}#{i}")


def digit(row: int) -> bytes:
    """Return one digit as PNG.

    Args:
        row: 0 to 1796.

    Raises:
        IndexError: no such row.
    """
    data = io.BytesIO()
    Image.fromarray(_load()[0][row]).save(data, "PNG")
    return data.getvalue()


@functools.lru_cache(maxsize=1)
def _load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # slow to import

    pixels, labels = load_digits().images, load_digits().target
    return np.round(pixels * (255 / 16)).astype(np.uint8), labels
