"""Small trees of real images, written by the tests that need them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EncodeImage = Callable[..., bytes]


def encode_image(
    number: int = 0, size: tuple[int, int] = (16, 12), format: str = "PNG", **options: Any
) -> bytes:
    """Encode a noisy RGB image, another one for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format, **options)
    return data.getvalue()


def write_tree(root: Path, classes: dict[str, int]) -> Path:
    """Write a folder a class with that many PNGs each, all of them different."""
    number = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i:03}.png").write_bytes(encode_image(number))
            number += 1
    return root
