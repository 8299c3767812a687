"""Decode images, and make the views that networks get.

Pillow decodes every format, so that an image has the same pixels wherever it is read. Everything
becomes upright RGB: EXIF rotation is applied; of an animation, the first frame is used;
transparent pixels are blended with white; 16-bit gray keeps its upper byte, as Pillow itself does
with 16-bit colour; CMYK and palettes are converted. Images of 32 bits per channel have no agreed
range and are refused. HEIC needs pillow-heif (the extra ``heic``); AVIF is Pillow's own.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from typing import IO, TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field, model_validator

from schn_ray.core.settings import Count, Section

if TYPE_CHECKING:
    from torch import Tensor

_Positive = Annotated[float, Field(gt=0)]

# Pillow knows more formats, but some of them start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF")
HEIC_EXTRA = "'schn-ray[heic]'"
NO_HEIC = f"HEIC, which needs pillow-heif: pip install {HEIC_EXTRA}"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_OPEN_LOCK = threading.Lock()
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocessing(Section):
    """How an image becomes the network's input. Saved with every model: other pixels, other codes.

    Attributes:
        resize: length of the shorter side before the crop, in pixels.
        crop: side of the square that the network gets, in pixels; at most ``resize``.
        mean: of each channel, on a scale of 0 to 1; subtracted.
        std: of each channel, on the same scale; divided by.
        max_pixels: larger images are refused before they are decoded.
        reduced: let the JPEG decoder halve large images repeatedly, to no less than twice
            ``resize``. This is several times faster; pixels differ slightly.
        interpolation: the filter that resizes; both are antialiased.
    """

    resize: Count
    crop: Count
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[_Positive, _Positive, _Positive] = (0.229, 0.224, 0.225)
    max_pixels: Count = 100_000_000
    reduced: bool = False
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _crop_fits(self) -> Preprocessing:
        if self.crop > self.resize:
            raise ValueError(f"crop {self.crop} does not fit into resize {self.resize}")
        return self


class BadImage(Exception):
    """The bytes are not an image that can be read.

    Args:
        reason: why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, max_pixels: int, at_least: int | None = None) -> Image.Image:
    """Decode one image to upright RGB.

    Args:
        data: the encoded bytes.
        max_pixels: refuse larger images, by their header, before pixels are decoded.
        at_least: a JPEG may be decoded at a smaller size, with no side shorter than this.

    Raises:
        BadImage: empty, not an image, too large, truncated or damaged.
    """
    if not data:
        raise BadImage("empty: 0 bytes")
    try:
        image = _open(io.BytesIO(data))
        _refuse_too_large(image.size, max_pixels)
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        _rotate_upright(image)
        return _to_rgb(image)
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(
            f"not an image: starts with {data[:16]!r}; wanted {', '.join(_FORMATS)}"
        ) from error
    except Exception as error:  # a decoder may raise anything over hostile bytes
        raise BadImage(f"damaged: {error or type(error).__name__}") from error


def image_size(file: IO[bytes]) -> tuple[int, int]:
    """Return width and height in pixels, by the header: no pixel is decoded.

    Args:
        file: an encoded image, that can be read from any offset.

    Raises:
        BadImage: not an image.
    """
    try:
        return _open(file).size
    except BadImage:
        raise
    except Exception as error:  # a decoder may raise anything over hostile bytes
        raise BadImage(f"not an image: {error}") from error


def media_type(data: bytes) -> str:
    """Return the media type of an image, such as ``image/jpeg``, by its header.

    Args:
        data: the encoded bytes.

    Raises:
        BadImage: not an image of the formats that are read.
    """
    try:
        return str(Image.MIME[_open(io.BytesIO(data)).format or ""])
    except BadImage:
        raise
    except Exception as error:  # a decoder may raise anything over hostile bytes
        raise BadImage(f"not an image: {error}") from error


def downsized(data: bytes, max_pixels: int, largest_side: int, quality: int) -> tuple[bytes, float]:
    """Make an image smaller if a side of it is too long.

    Args:
        data: the encoded bytes.
        max_pixels: see ``decode``.
        largest_side: of the result, in pixels.
        quality: of JPEG, 1 to 95.

    Returns:
        The unchanged bytes and 1.0, or a smaller JPEG (upright, RGB) and the factor, below 1.

    Raises:
        BadImage: see ``decode``.
    """
    image = decode(data, max_pixels)
    factor = largest_side / max(image.size)
    if factor >= 1:
        return data, 1.0
    width, height = (max(1, round(side * factor)) for side in image.size)
    smaller = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    smaller.save(out, "JPEG", quality=quality)
    return out.getvalue(), factor


def evaluation_view(data: bytes | Image.Image, p: Preprocessing) -> NDArray[np.uint8]:
    """Decode an image, resize its shorter side (antialiased) and crop the centre.

    Equal to torchvision's ``Resize`` and ``CenterCrop`` of the same image, within rounding.

    Args:
        data: the encoded bytes, or an image, which is not changed.
        p: sizes and limits.

    Returns:
        uint8 [3, crop, crop].

    Raises:
        BadImage: see ``decode``.
    """
    if isinstance(data, Image.Image):
        image = _upright_copy(data, p.max_pixels)
    else:
        image = decode_for(data, p)
    width, height = _resized(image.size, p.resize)
    left, top = round((width - p.crop) / 2), round((height - p.crop) / 2)
    return channels_first(_cut(image, (width, height), left, top, p))


def training_view(
    image: Image.Image, p: Preprocessing, pad: int, flip: bool, draws: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Resize the shorter side of an image, add a black border, and crop a random square.

    Args:
        image: as ``decode_for`` gives it.
        p: sizes and limits.
        pad: width of the border on each side, in pixels of the resized image.
        flip: mirror the square if ``draws[2] < 0.5``.
        draws: [3] random numbers in [0, 1): vertical and horizontal position of the square, and
            whether it is mirrored.

    Returns:
        uint8 [3, crop, crop].
    """
    width, height = _resized(image.size, p.resize)
    top = int(draws[0] * (height + 2 * pad - p.crop + 1)) - pad
    left = int(draws[1] * (width + 2 * pad - p.crop + 1)) - pad
    square = _cut(image, (width, height), left, top, p)
    mirrored = flip and draws[2] < 0.5
    return channels_first(square[:, ::-1] if mirrored else square)


def normalise(batch: Tensor, p: Preprocessing) -> Tensor:
    """Scale pixels to 0..1, subtract the mean and divide by the standard deviation.

    Args:
        batch: [N, 3, S, S] uint8.
        p: mean and standard deviation of each channel.

    Returns:
        [N, 3, S, S] float32.
    """
    scaled = batch.float() / 255
    mean = scaled.new_tensor(p.mean).view(1, 3, 1, 1)
    std = scaled.new_tensor(p.std).view(1, 3, 1, 1)
    return (scaled - mean) / std


def decode_for(data: bytes, p: Preprocessing) -> Image.Image:
    """Decode one image to upright RGB, large enough for its views.

    Args:
        data: the encoded bytes.
        p: sizes and limits.

    Raises:
        BadImage: see ``decode``.
    """
    return decode(data, p.max_pixels, 2 * p.resize if p.reduced else None)


def _open(file: IO[bytes]) -> Image.Image:
    with _OPEN_LOCK:  # Pillow's limit is global, and may be lower than max_pixels
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            if not _is_heic(file):
                raise
            if not can_read_heic():
                raise BadImage(NO_HEIC) from None
            return Image.open(file, formats=("HEIF",))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _is_heic(file: IO[bytes]) -> bool:
    file.seek(0)
    start = file.read(12)
    file.seek(0)
    return start[4:8] == b"ftyp" and start[8:] in _HEIC_BRANDS


@functools.cache
def can_read_heic() -> bool:
    """Teach Pillow to read HEIC; return whether that library is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _upright_copy(image: Image.Image, max_pixels: int) -> Image.Image:
    _refuse_too_large(image.size, max_pixels)
    try:
        return _to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except Exception as error:  # its file may be read only now
        raise BadImage(f"damaged: {error or type(error).__name__}") from error


def _refuse_too_large(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImage(f"{width} x {height} pixels, more than max_pixels = {max_pixels:,}")


def _rotate_upright(image: Image.Image) -> None:
    # with a damaged EXIF block, the rotation is unknown but the pixels are good
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        upper = np.asarray(image) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(f"32-bit pixels (mode {image.mode}); convert them to 8 or 16 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _cut(
    image: Image.Image, resized: tuple[int, int], left: int, top: int, p: Preprocessing
) -> NDArray[np.uint8]:
    """Return a square of the resized image [crop, crop, 3], black outside the image.

    Only the square is computed: a 1 x 20,000 image resized to 256 would fill 4 GB.
    """
    side = p.crop
    right, bottom = min(left + side, resized[0]), min(top + side, resized[1])
    inner_left, inner_top = max(left, 0), max(top, 0)
    square = np.zeros((side, side, 3), np.uint8)
    if right <= inner_left or bottom <= inner_top:
        return square
    across, down = image.width / resized[0], image.height / resized[1]
    part = image.resize(
        (right - inner_left, bottom - inner_top),
        FILTERS[p.interpolation],
        box=(
            inner_left * across,
            inner_top * down,
            min(right * across, image.width),  # rounding must not leave the image
            min(bottom * down, image.height),
        ),
    )
    square[inner_top - top : bottom - top, inner_left - left : right - left] = np.asarray(part)
    return square


def channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the pixels [S, S, 3] of an image as [3, S, S].

    Args:
        pixels: of the image.
    """
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
