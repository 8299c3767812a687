"""What a model is given in Python: images as files, bytes, Pillow images or pixels; or vectors.

Torch is not imported for it: a tensor is known by its methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schn_ray.core.errors import SchnRayError

Images = Any
"""One image, or a sequence of them: see ``image_list``."""
GivenImage = bytes | Path | Image.Image
_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
_PIXELS = (
    "expected [H, W, 3] or [3, H, W] for one image, or uint8 [H, W]; for images of one size, [n, "
    "H, W, 3] or [n, 3, H, W]"
)


def image_list(images: Images) -> list[GivenImage]:
    """Return one image or more as a list; a string is one path.

    Args:
        images: a path, the bytes of an image file, a Pillow image, or pixels: a NumPy array or
            tensor [H, W, 3] or [3, H, W], also with 1 or 4 (RGBA) channels, uint8 or floats from 0
            to 1; or uint8 [H, W]. Or a sequence of such, or pixels with one dimension more.

    Raises:
        SchnRayError: something else, or pixels of another shape or scale; its number is named.

    Example:
        >>> image_list("cat.jpg"), len(image_list(np.zeros((5, 32, 32, 3), np.uint8)))
        ([PosixPath('cat.jpg')], 5)
    """
    if _is_one(images):
        return [_given(images, 0)]
    if _is_array(images):
        pixels = as_array(images)
        rows = pixels if pixels.ndim == 4 else pixels[None]
        return [_given(row, number) for number, row in enumerate(rows)]
    if not isinstance(images, Iterable):
        raise _no_image(images, 0)
    return [_given(image, number) for number, image in enumerate(images)]


def image_names(images: Sequence[GivenImage]) -> list[str]:
    """Return what messages and results call images: their paths, or ``image 0`` and so on.

    Args:
        images: as ``image_list`` returns them.
    """
    return [str(im) if isinstance(im, Path) else f"image {i}" for i, im in enumerate(images)]


def are_files(rows: Any) -> bool:
    """Tell whether rows are images of any kind but pixels: the latter could be vectors.

    Args:
        rows: what a model was given.
    """
    return _is_one(rows) or (isinstance(rows, Sequence) and any(map(_is_one, rows[:1])))


def is_empty(rows: Any) -> bool:
    """Tell whether nothing was given: no row, or None.

    Args:
        rows: what a model is to encode.
    """
    return rows is None or (hasattr(rows, "__len__") and len(rows) == 0)


def vector_array(vectors: Any) -> NDArray[Any]:
    """Return vectors as an array [n, d]; of one vector [d], n is 1.

    Args:
        vectors: a NumPy array or tensor [d] or [n, d], or a sequence of vectors.

    Raises:
        SchnRayError: no array can be made of them.
    """
    try:
        rows = as_array(vectors) if _is_array(vectors) else np.stack([*map(as_array, vectors)])
        return rows[None] if rows.ndim == 1 else rows
    except (TypeError, ValueError) as error:
        raise SchnRayError(f"these are no vectors of one length: {error}") from error


def as_array(values: Any) -> NDArray[Any]:
    """Return a tensor, on any device, or whatever else NumPy takes, as an array.

    Args:
        values: a tensor, an array or a list of numbers.
    """
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _given(image: Any, number: int) -> GivenImage:
    if isinstance(image, (str, os.PathLike)):
        return Path(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, Image.Image):
        return image
    if _is_array(image):
        return _image_of(as_array(image), number, channels_first=hasattr(image, "detach"))
    raise _no_image(image, number)


def _image_of(pixels: NDArray[Any], number: int, channels_first: bool) -> Image.Image:
    """Return pixels as an image; a shape that could be read both ways is read as asked."""
    if pixels.ndim == 2 and pixels.dtype == np.uint8:  # floats would be vectors
        pixels = pixels[:, :, None]
    ends = [axis for axis in (0, 2) if pixels.ndim == 3 and pixels.shape[axis] in _CHANNELS]
    if not ends or pixels.size == 0:
        raise SchnRayError(f"image {number} has pixels of the shape {pixels.shape}; {_PIXELS}")
    if (0 if channels_first and 0 in ends else ends[-1]) == 0:
        pixels = pixels.transpose(1, 2, 0)
    values = _bytes_of(pixels, number)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)


def _bytes_of(pixels: NDArray[Any], number: int) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise SchnRayError(
            f"image {number} has pixels of type {pixels.dtype}; expected uint8, or floats of 0 to 1"
        )
    if not (np.min(pixels) >= 0 and np.max(pixels) <= 1):  # also of NaN
        raise SchnRayError(
            f"image {number} has floats from {np.min(pixels):.4g} to {np.max(pixels):.4g}; "
            "expected 0 to 1, not normalised: the model does that itself"
        )
    return np.ascontiguousarray(np.round(pixels * 255).astype(np.uint8))


def _is_one(images: Any) -> bool:
    files = str, os.PathLike, bytes, bytearray, memoryview, Image.Image
    return isinstance(images, files)


def _is_array(values: Any) -> bool:
    return isinstance(values, np.ndarray) or hasattr(values, "detach")


def _no_image(value: Any, number: int) -> SchnRayError:
    return SchnRayError(
        f"image {number} is a {type(value).__name__}; expected a path, the bytes of an image file, "
        "a Pillow image, or pixels as an array or tensor"
    )
