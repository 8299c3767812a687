"""Pictures with coarse and fine structure, as photographs have, and how much two differ."""

import io
from typing import Any

import numpy as np
from PIL import Image

from schn_ray.retrieval.duplicates.thumbnails import differences, thumbnail, whole_vectors


def picture_of(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for side, weight in ((3, 90), (7, 60), (20, 30)):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        smooth = noise.resize((width, height), Image.Resampling.BICUBIC)
        pixels += weight / 255 * np.asarray(smooth, np.float64)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture_difference(first: bytes, second: bytes) -> float:
    pixels = np.stack([thumbnail(first), thumbnail(second)])
    vectors, _ = whole_vectors(pixels)
    pair = differences(pixels, vectors, np.array([0, 1]), np.array([1, 0]))
    assert abs(pair[0] - pair[1]) < 1e-6  # whichever is the copy
    return float(pair[0])
