"""What is compared of two images: small thumbnails, whole, mirrored and cropped.

An image becomes 24 x 24 luminances and twice 8 x 8 chromas, whatever its shape. Of these, the
lowest 8 x 8 and 4 x 4 coefficients of the cosine transform, without the means, are its vector. The
difference of two images is 1 less the cosine of their vectors: 0 for equal ones, whatever their
size, brightness and contrast; 1 for two that have nothing in common.

A mirrored image has the same vector, with the sign of each odd horizontal frequency turned. The
vector of a crop is computed from the thumbnail of the whole: the same integrals over a part of it.
So each image is compared with the other, with its mirror image, and with 48 crops of it, and the
other way round; the smallest difference counts.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, decode
from schn_ray.data.sources.fetch import fetch
from schn_ray.retrieval.duplicates.bands import group_starts
from schn_ray.retrieval.index.contents import DIGEST

_SIDE, _CHROMA = 24, 8  # pixels of a thumbnail's sides
_Y, _C = 8, 4  # frequencies of a side that are compared
WIDTH = _SIDE**2 + 2 * _CHROMA**2  # bytes of a thumbnail
_SCALES, _OFFSETS = (0.94, 0.88, 0.82), 4  # of crops: share of each side, positions along it
_FLAT = 1.0  # gray levels; below it there is nothing to compare
_MAX_PIXELS = 100_000_000
_THREADS = 8  # they wait for the disk or the network
_AT_ONCE = 256  # images whose crops are computed at once

LIMIT = 0.02  # difference of two images that count as copies; see benchmarks/README.md
_HOPELESS = 0.5  # difference of two whole images of which no crop is tried

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ImageList:
    """Images to read.

    Attributes:
        number: of the list in the job, from 0.
        uris: of the images.
    """

    number: int
    uris: Sequence[str]

    @property
    def rows(self) -> int:
        """How many images."""
        return len(self.uris)


@dataclass(frozen=True, eq=False)
class ReadImages:
    """The thumbnails of a list of n images.

    Attributes:
        number: of the list.
        pixels: uint8 [n, 704]; 0 of an image that cannot be read.
        contents: uint8 [n, 16], the first bytes of its SHA-256.
        problems: position in the list -> why the image cannot be read.
    """

    number: int
    pixels: Pixels
    contents: NDArray[np.uint8]
    problems: dict[int, str]


def read_images(images: ImageList) -> ReadImages:
    """Read and decode images.

    Args:
        images: whose bytes are fetched by their uris.
    """
    read = ReadImages(
        images.number,
        np.zeros((images.rows, WIDTH), np.uint8),
        np.zeros((images.rows, DIGEST), np.uint8),
        {},
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        for row, result in enumerate(pool.map(_read, images.uris)):
            if isinstance(result, str):
                read.problems[row] = result
            else:
                read.pixels[row], read.contents[row] = result
    return read


def _read(uri: str) -> tuple[Pixels, NDArray[np.uint8]] | str:
    try:
        data = fetch(uri)
        digest = hashlib.sha256(data).digest()[:DIGEST]
        return thumbnail(data), np.frombuffer(digest, np.uint8)
    except (SchnRayError, OSError) as error:
        return str(error)
    except BadImage as error:
        return f"{uri}: {error.reason}"


def thumbnail(data: bytes) -> Pixels:
    """Decode an image and make its thumbnail: uint8 [704].

    Args:
        data: the encoded bytes.

    Raises:
        BadImage: see ``data.images.decode``.
    """
    image = decode(data, _MAX_PIXELS, 4 * _SIDE)
    bands = zip(image.convert("YCbCr").split(), (_SIDE, _CHROMA, _CHROMA), strict=True)
    small = [band.resize((side, side), Image.Resampling.BILINEAR) for band, side in bands]
    return np.concatenate([np.asarray(band).ravel() for band in small])


def whole_vectors(pixels: Pixels) -> tuple[Vectors, NDArray[np.bool_]]:
    """Return the vectors of whole images, float32 [n, 93], and which are flat, bool [n].

    Args:
        pixels: uint8 [n, 704], thumbnails.
    """
    vectors, flat = np.empty((len(pixels), len(_odd())), np.float32), np.ones(len(pixels), np.bool_)
    for start in range(0, len(pixels), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        coefficients = _coefficients(pixels[block], ((0.0, 1.0),))[:, 0, 0]
        norms = np.linalg.norm(coefficients, axis=1, keepdims=True)
        vectors[block], flat[block] = coefficients / np.maximum(norms, 1e-9), norms[:, 0] < _FLAT
    return vectors, flat


def differences(
    pixels: Pixels, vectors: Vectors, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the difference of each pair of images: float32 [p].

    Args:
        pixels: uint8 [n, 704], thumbnails.
        vectors: float32 [n, 93], of ``whole_vectors``.
        first: int64 [p], positions of images.
        second: int64 [p].
    """
    odd = _odd()
    products = vectors[first] * vectors[second]
    even_sum, odd_sum = products[:, ~odd].sum(axis=1), products[:, odd].sum(axis=1)
    least: NDArray[np.float32] = 1 - even_sum - np.abs(odd_sum)  # as they are, or mirrored
    unclear = np.flatnonzero((least > LIMIT) & (least < _HOPELESS))
    for crops_of, other in ((first, second), (second, first)):
        order = unclear[np.argsort(crops_of[unclear], kind="stable")]
        starts = group_starts(crops_of[order])
        images = crops_of[order[starts[:-1]]]
        for block in range(0, len(images), _AT_ONCE):
            crops_of_block = _crop_vectors(pixels[images[block : block + _AT_ONCE]])
            for number, crops in enumerate(crops_of_block, block):
                pairs = order[starts[number] : starts[number + 1]]
                cosines = (vectors[other[pairs]] @ crops.T).max(axis=1)
                least[pairs] = np.minimum(least[pairs], 1 - cosines)
    return np.maximum(least, 0)


def _crop_vectors(pixels: Pixels) -> Vectors:
    """Return the vectors of all crops of thumbnails: float32 [n, 48, 93]."""
    parts = []
    for scale in _SCALES:
        starts = np.linspace(0, 1 - scale, _OFFSETS).tolist()
        part = _coefficients(pixels, tuple((start, start + scale) for start in starts))
        parts.append(part.reshape(len(pixels), -1, part.shape[-1]))
    crops = np.concatenate(parts, axis=1)
    norms = np.linalg.norm(crops, axis=2, keepdims=True)
    scaled: Vectors = crops / np.maximum(norms, _FLAT)  # a flat crop is like nothing
    return scaled


def _coefficients(pixels: Pixels, spans: tuple[tuple[float, float], ...]) -> Vectors:
    """Return the coefficients of rectangles: float32 [n, s, s, 93], by vertical, horizontal span.

    Args:
        pixels: uint8 [n, 704].
        spans: from where to where a side is covered, in [0, 1].
    """
    n, s = len(pixels), len(spans)
    luma, chroma = _SIDE**2, _CHROMA**2
    columns = []
    for start, side, count in ((0, _SIDE, _Y), (luma, _CHROMA, _C), (luma + chroma, _CHROMA, _C)):
        plane = pixels[:, start : start + side**2].reshape(n, side, side).astype(np.float32)
        basis = np.concatenate([_cosines(count, side, *span) for span in spans])
        products = (basis @ plane @ basis.T).reshape(n, s, count, s, count)
        columns.append(products.transpose(0, 1, 3, 2, 4).reshape(n, s, s, count**2)[..., 1:])
    return np.concatenate(columns, axis=-1)


@functools.cache
def _cosines(count: int, side: int, low: float, high: float) -> Vectors:
    """Return the mean over [low, high] of each pixel times each cosine: float32 [count, side]."""
    edges = (np.clip(np.arange(side + 1) / side, low, high) - low) / (high - low)
    rows = [np.diff(edges)]
    rows += [np.diff(np.sin(np.pi * u * edges)) / (np.pi * u) for u in range(1, count)]
    return np.stack(rows).astype(np.float32)


@functools.cache
def _odd() -> NDArray[np.bool_]:
    """Tell which numbers of a vector have an odd horizontal frequency: bool [93]."""
    frequencies = [[x for _, x in product(range(n), range(n))][1:] for n in (_Y, _C, _C)]
    return np.array([x % 2 == 1 for of_plane in frequencies for x in of_plane])
