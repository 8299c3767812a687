"""What the search server answers, without HTTP: images, ids, codes, thumbnails."""

from __future__ import annotations

import functools
import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, decode, evaluation_view
from schn_ray.data.sources.fetch import fetch
from schn_ray.models.hasher import Hasher, load
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.search import (
    Queries,
    Result,
    SearchLimits,
    code_queries,
    id_queries,
    require_same_model,
    search_codes,
)

_TINY, _THUMBNAIL = 64, 320  # pixels; what is tiny keeps every pixel
_THUMBNAILS = 512  # kept in memory


class Refused(Exception):
    """A request that is not answered: the status says of what kind, the text why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Service:
    """Answers requests; its methods block and may run in several threads.

    Args:
        index: what is searched.
        hasher: the model that coded it.
        config: caps.

    Raises:
        SchnRayError: another model.
    """

    def __init__(self, index: Index, hasher: Hasher, config: ServeConfig) -> None:
        require_same_model(index, hasher)
        self.index, self.config, self._hasher = index, config, hasher
        own = hasher.spec.preprocessing
        pixels = min(own.max_pixels, config.max_pixels)
        self._preprocessing = own.model_copy(update={"max_pixels": pixels})
        self._coding = threading.Semaphore(os.cpu_count() or 1)  # torch has threads of its own
        self.thumbnail = functools.lru_cache(_THUMBNAILS)(self._thumbnail)

    def search_image(self, image: bytes, wanted: SearchLimits) -> dict[str, Any]:
        """Look for an image, given as its file's bytes.

        Raises:
            Refused: not an image, or too large.
        """
        with self._coding:
            try:
                view = evaluation_view(image, self._preprocessing)
            except BadImage as error:
                raise Refused(415, f"the image cannot be used: {error.reason}") from error
            codes = self._hasher.encode_views([view[None]])
        return self._answer(Queries([""], [""], codes, np.array([-1])), wanted)

    def search_id(self, id: str, wanted: SearchLimits) -> dict[str, Any]:
        """Look for more like an indexed image.

        Raises:
            Refused: no such id.
        """
        try:
            queries = id_queries(self.index, [id])
        except SchnRayError as error:
            self._require(id, error)
        return self._answer(queries, wanted)

    def search_code(self, code: str, wanted: SearchLimits) -> dict[str, Any]:
        """Look for a code, in hexadecimal.

        Raises:
            Refused: not a code of the index's bits.
        """
        try:
            queries = code_queries(self.index, [code])
        except SchnRayError as error:
            raise Refused(400, str(error)) from error
        return self._answer(queries, wanted)

    def _thumbnail(self, id: str) -> tuple[bytes, str]:
        """Return a small picture of an indexed image -> bytes, media type.

        Raises:
            Refused: no such id, or its image is gone.
        """
        try:
            uri = self.index.uris(np.array([self.index.find(id)]))[0]
        except SchnRayError as error:
            self._require(id, error)
        try:
            image = decode(fetch(uri), self.config.max_pixels)
        except (SchnRayError, OSError, BadImage) as error:
            raise Refused(404, f"the image of {id!r} is not there any more") from error
        kind = "PNG" if max(image.size) <= _TINY else "JPEG"
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
        out = io.BytesIO()
        image.save(out, kind)
        return out.getvalue(), f"image/{kind.lower()}"

    def _require(self, id: str, error: SchnRayError) -> None:
        if "is not an id" not in str(error):
            raise error  # the index is damaged
        raise Refused(404, f"{id!r} is not an id of the index") from error

    def _answer(self, queries: Queries, wanted: SearchLimits) -> dict[str, Any]:
        (found,) = search_codes(self.index, queries, wanted)
        return {
            "code": queries.codes[0].tobytes().hex(),
            "bits": self.index.bits,
            "rows": len(self.index),
            **_counts(found),
            "hits": [{"id": hit.id, "distance": hit.distance} for hit in found.hits],
        }


def _counts(found: Result) -> dict[str, int]:
    counts = {"tied": found.tied, "found": found.within_radius}
    return {name: count for name, count in counts.items() if count is not None}


def open_service(index: Path | str, model: Path | str, config: ServeConfig) -> Service:
    """Open an index and the model that coded it.

    Raises:
        SchnRayError: one of them is missing or damaged, or they do not belong together.
    """
    return Service(open_index(index), load(model), config)
