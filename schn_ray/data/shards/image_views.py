"""Rows of a part as a network sees them; an image whose result is known is not decoded again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.images import BadImage, Preprocessing, evaluation_view
from schn_ray.data.shards.rows import BadRow, Row


@dataclass(frozen=True)
class ImageView:
    """A row before a network has seen it.

    Attributes:
        row: as it came.
        digest: SHA-256 of its image.
        pixels: as the network sees them; None if the result is known.
        same: row of the existing part whose image has the same bytes; -1 if there is none.
    """

    row: Row
    digest: bytes
    pixels: NDArray[np.uint8] | None = None
    same: int = -1


class ImageViews:
    """Decodes the images of rows.

    Args:
        preprocessing: from an image to the network's input.
        existing: SHA-256 of the images of the part that is replaced, whose results are used again.
    """

    def __init__(self, preprocessing: Preprocessing, existing: Iterable[bytes] = ()) -> None:
        self._preprocessing = preprocessing
        self._row_of = {digest: row for row, digest in enumerate(existing)}

    def view_of(self, row: Row) -> ImageView | BadRow:
        """Decode an image, unless its result is known.

        Args:
            row: with or without an image.

        Returns:
            The view, or why there is none.
        """
        if row.image is None:
            return BadRow(row.id, row.uri, "read", "no image")
        digest = hashlib.sha256(row.image).digest()
        if (same := self._row_of.get(digest)) is not None:
            return ImageView(row, digest, same=same)
        try:
            return ImageView(row, digest, evaluation_view(row.image, self._preprocessing))
        except BadImage as error:
            return BadRow(row.id, row.uri, "decode", error.reason)
