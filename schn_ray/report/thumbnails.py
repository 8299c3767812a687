"""Images made small enough to be part of an HTML file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

_TINY = 64  # pixels; up to here every pixel is kept, and shown as a square
_THUMBNAIL = 224  # pixels; twice the size on the page, for screens of high density


@dataclass(frozen=True)
class Inlined:
    """A data URI to show, and whether its pixels are to be drawn as squares."""

    uri: str
    pixelated: bool


def inline(image: bytes) -> Inlined | None:
    """Shrink an image file's bytes into a data URI: PNG if tiny, else a JPEG thumbnail.

    Returns:
        None where the bytes are not an image that Pillow can decode.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if tiny := max(opened.size) <= _TINY:
                return Inlined(_encode(opened, "PNG"), pixelated=tiny)
            opened.thumbnail((_THUMBNAIL, _THUMBNAIL))
            return Inlined(_encode(opened, "JPEG"), pixelated=tiny)
    except Exception:  # decoders raise what they like on bad bytes, and a report must appear
        return None


def data_uri(content: bytes, media_type: str) -> str:
    """Return bytes as an address that needs no fetch.

    >>> data_uri(b"hi", "text/plain")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _encode(image: Image.Image, kind: str) -> str:
    out = io.BytesIO()
    ImageOps.exif_transpose(image).convert("RGB").save(out, kind)
    return data_uri(out.getvalue(), f"image/{kind.lower()}")
