"""Images as thumbnails inside an HTML file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

_TINY = 64  # pixels; up to this size no pixel is dropped, and each is shown as a square
_THUMBNAIL = 224  # pixels; twice the size on the page, for high-density screens


@dataclass(frozen=True)
class Inlined:
    """An image as a data URI.

    Attributes:
        uri: the image.
        pixelated: whether its pixels are drawn as squares.
    """

    uri: str
    pixelated: bool


def inline(image: bytes, side: int = _THUMBNAIL) -> Inlined | None:
    """Shrink an image into a data URI: a PNG if it is tiny, else a JPEG thumbnail.

    Args:
        image: bytes of an image file.
        side: pixels of the longer side of a thumbnail.

    Returns:
        None where Pillow cannot decode the bytes.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if tiny := max(opened.size) <= _TINY:
                return Inlined(_encode(opened, "PNG"), pixelated=tiny)
            opened.thumbnail((side, side))
            return Inlined(_encode(opened, "JPEG"), pixelated=tiny)
    except Exception:  # decoders raise anything on bad bytes; the report must be written
        return None


def data_uri(content: bytes, media_type: str) -> str:
    """Return bytes as a URI that holds them.

    Args:
        content: the bytes.
        media_type: such as ``image/png``.

    >>> data_uri(b"hi", "text/plain")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _encode(image: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    ImageOps.exif_transpose(image).convert("RGB").save(out, kind)
    return data_uri(out.getvalue(), f"image/{kind.lower()}")
