"""The search server without HTTP: search by image, id or code, and make thumbnails."""

from __future__ import annotations

import functools
import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schn_ray.core.errors import SchnRayError, UnknownId
from schn_ray.data.images import BadImage, decode, evaluation_view
from schn_ray.data.sources.fetch import fetch
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.load import load
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.queries import (
    Queries,
    code_queries,
    content_digest,
    id_queries,
    relaxed_queries,
    same_model,
    with_own_vectors,
)
from schn_ray.retrieval.search import RESCORINGS, Hit, Result, SearchLimits, search_codes
from schn_ray.retrieval.where import BadCondition

_TINY, _THUMBNAIL = 64, 320  # pixels; a tiny image is sent unchanged, as PNG
_THUMBNAILS = 512  # cached in memory
_FILTERS = 4  # the last ones, in memory: each up to 12 bytes a row, and the codes


class Refused(Exception):
    """A request that is refused.

    Args:
        status: HTTP status of the response.
        why: the error message.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Service:
    """Answers requests. Its methods block; threads may share one object.

    Args:
        index: the index to search.
        hasher: the model that encoded it.
        config: limits of a request.

    Raises:
        SchnRayError: the index was encoded by another model.
    """

    def __init__(self, index: Index, hasher: BaseHasher, config: ServeConfig) -> None:
        hasher = same_model(index, hasher)
        self.index, self.config, self._hasher = index, config, hasher
        own = hasher.of_images()
        pixels = min(own.max_pixels, config.max_pixels)
        self._preprocessing = own.model_copy(update={"max_pixels": pixels})
        self._encoding = threading.Semaphore(os.cpu_count() or 1)  # networks have own threads
        self._where = functools.lru_cache(_FILTERS)(index.where)
        self.thumbnail = functools.lru_cache(_THUMBNAILS)(self._thumbnail)

    @property
    def rescorings(self) -> tuple[str, ...]:
        """What a search of this index can be ordered by, beside distance."""
        return tuple(name for name in RESCORINGS if name in ("query", *self.index.vector_names))

    def search_image(self, image: bytes, limits: SearchLimits) -> dict[str, Any]:
        """Search for an image.

        Args:
            image: the bytes of its file.
            limits: how many results, how near.

        Raises:
            Refused: not an image, or too large; or a bad filter.
        """
        with self._encoding:
            try:
                view = evaluation_view(image, self._preprocessing)
            except BadImage as error:
                raise Refused(415, f"the image cannot be used: {error.reason}") from error
            F, U = self._hasher.output_arrays(view[None])
        queries = relaxed_queries([""], [""], U, F)
        queries = replace(queries, contents=content_digest(image)[None])
        return self._answer(queries, limits)

    def search_id(self, id: str, limits: SearchLimits) -> dict[str, Any]:
        """Search for images like an indexed one.

        Args:
            id: of the indexed image.
            limits: how many results, how near.

        Raises:
            Refused: the index does not have the id; or, for a search rescored by ``query``, the
                image cannot be read any more; or a bad filter.
        """
        try:
            queries = id_queries(self.index, [id])
        except UnknownId as error:
            raise _unknown(id) from error
        if limits.vectors is not None:
            self._require_vectors(limits)
            queries = with_own_vectors(self.index, queries, limits.vectors)
        elif limits.rescore is not None:
            view = self._image_of(id, queries.uris[0])
            with self._encoding:
                relaxed = self._hasher.relaxed_array(view[None])
            encoded = relaxed_queries(queries.names, queries.uris, relaxed)
            queries = replace(encoded, rows=queries.rows, contents=queries.contents)
        return self._answer(queries, limits)

    def search_code(self, code: str, limits: SearchLimits) -> dict[str, Any]:
        """Search for a code.

        Args:
            code: in hexadecimal.
            limits: how many results, how near.

        Raises:
            Refused: not a code of the index's bits, or a search to be rescored; or a bad filter.
        """
        if limits.rescore is not None:
            raise Refused(400, "a code is only signs: send the image, or its id, to rescore")
        try:
            queries = code_queries(self.index, [code])
        except SchnRayError as error:
            raise Refused(400, str(error)) from error
        return self._answer(queries, limits)

    def _thumbnail(self, id: str) -> tuple[bytes, str]:
        """Make a thumbnail of an indexed image -> bytes, media type.

        Raises:
            Refused: the index does not have the id, or the image cannot be read any more.
        """
        try:
            uri = self.index.uris(np.array([self.index.find(id)]))[0]
        except UnknownId as error:
            raise _unknown(id) from error
        try:
            image = decode(fetch(uri), self.config.max_pixels)
        except (SchnRayError, OSError, BadImage) as error:
            raise Refused(404, f"the image of {id!r} cannot be read any more") from error
        kind = "PNG" if max(image.size) <= _TINY else "JPEG"
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
        out = io.BytesIO()
        image.save(out, kind)
        return out.getvalue(), f"image/{kind.lower()}"

    def _image_of(self, id: str, uri: str) -> NDArray[np.uint8]:
        try:
            return evaluation_view(fetch(uri), self._preprocessing)
        except (SchnRayError, OSError, BadImage) as error:
            raise Refused(404, f"the image of {id!r} cannot be read any more") from error

    def _require_vectors(self, limits: SearchLimits) -> None:
        if limits.vectors is not None and limits.vectors not in self.index.vector_names:
            has = " or ".join(self.rescorings)
            raise Refused(400, f"this index cannot rescore by {limits.vectors}, only by {has}")

    def _answer(self, queries: Queries, limits: SearchLimits) -> dict[str, Any]:
        self._require_vectors(limits)
        index = self.index
        if limits.where is not None:
            try:
                index = self._where(limits.where)
            except BadCondition as error:
                raise Refused(400, str(error)) from error
        (result,) = search_codes(index, queries, limits)
        return {
            "code": queries.codes[0].tobytes().hex(),
            "bits": self.index.bits,
            "rows": len(self.index),
            **_counts(result),
            **({} if result.candidates is None else {"proven": result.proven}),
            "hits": [_shown(hit) for hit in result.hits],
        }


def _shown(hit: Hit) -> dict[str, Any]:
    score = {} if hit.score is None else {"score": hit.score}
    return {"id": hit.id, "distance": hit.distance} | score


def _unknown(id: str) -> Refused:
    return Refused(404, f"{id!r} is not an id of the index")


def _counts(result: Result) -> dict[str, int]:
    counts = {
        "tied": result.tied,
        "within_radius": result.within_radius,
        "candidates": result.candidates,
        "passing": result.passing,
    }
    return {name: count for name, count in counts.items() if count is not None}


def open_service(index: Path | str, model: Path | str, config: ServeConfig) -> Service:
    """Open an index and the model that encoded it.

    Args:
        index: a path or a URI.
        model: a run or a model directory, a path or a URI.
        config: limits of a request.

    Raises:
        SchnRayError: one of them is missing or damaged, or another model encoded the index.
    """
    return Service(open_index(index), load(model), config)
