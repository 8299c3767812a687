"""The search server without HTTP: search by image, id or code; thumbnails and originals."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from schn_ray.core.errors import SchnRayError, UnknownId, nearest
from schn_ray.data.images import BadImage, decode, evaluation_view, media_type
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.store.reader import open_store
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.load import load
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.index.contents import DIGEST
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
from schn_ray.retrieval.search import RESCORINGS, Result, SearchLimits, search_codes
from schn_ray.retrieval.server.messages import (
    ColumnValues,
    ExampleOptions,
    Examples,
    Health,
    HitAnswer,
    ImageAnswer,
    Refused,
    SearchAnswer,
    ValueAnswer,
    ValueOptions,
)
from schn_ray.retrieval.server.row_labels import RowLabels, column_to_list, labels_of_index
from schn_ray.retrieval.text_lists import flattened_texts
from schn_ray.retrieval.where import BadCondition

_TINY, _THUMBNAIL = 64, 320  # pixels; a tiny image is sent unchanged, as PNG
_THUMBNAILS = 512  # cached in memory
_FILTERS = 4  # the last ones, in memory: each up to 12 bytes a row, and the codes


class Service:
    """Answers requests. Its methods block; threads may share one object.

    Args:
        index: the index to search.
        hasher: the model that encoded it.
        config: limits of a request.
        labels: knows the classes of the index's rows; None if nobody does.

    Raises:
        SchnRayError: the index was encoded by another model.
    """

    def __init__(
        self,
        index: Index,
        hasher: BaseHasher,
        config: ServeConfig,
        labels: RowLabels | None = None,
    ) -> None:
        hasher = same_model(index, hasher)
        self.index, self.config, self._hasher, self._labels = index, config, hasher, labels
        own = hasher.of_images()
        pixels = min(own.max_pixels, config.max_pixels)
        self._preprocessing = own.model_copy(update={"max_pixels": pixels})
        self._encoding = threading.Semaphore(os.cpu_count() or 1)  # networks have own threads
        self._where = functools.lru_cache(_FILTERS)(index.where)
        self._value_counts = functools.lru_cache(_FILTERS)(self._count_values)
        self.thumbnail = functools.lru_cache(_THUMBNAILS)(self._thumbnail)

    @property
    def rescorings(self) -> tuple[str, ...]:
        """What a search of this index can be ordered by, beside distance."""
        return tuple(name for name in RESCORINGS if name in ("query", *self.index.vector_names))

    def health(self) -> Health:
        """Return what is served."""
        return Health(
            status="ok",
            index_rows=len(self.index),
            index_codes=self.index.unique_codes,
            bits=self.index.bits,
            columns=self.index.kinds,
            rescorings=list(self.rescorings),
            max_results=self.config.max_results,
            originals=self.config.originals,
            listed_column=column_to_list(self.index.kinds),
        )

    def examples(self, options: ExampleOptions) -> Examples:
        """Return images to begin with, evenly spaced over those that pass.

        Args:
            options: how many, of which.

        Raises:
            Refused: a bad filter.
        """
        rows = np.arange(len(self.index))
        if options.where is not None:
            rows = rows[self._filtered(options.where).passes(rows)]
        count = min(options.k, len(rows))
        rows = rows[np.arange(count) * len(rows) // max(1, count)]
        known = zip(self.index.ids(rows), self._labels_of(rows), strict=True)
        return Examples(images=[ImageAnswer(id=id, labels=labels) for id, labels in known])

    def values(self, options: ValueOptions) -> ColumnValues:
        """Return the values of a column, the most frequent first.

        Args:
            options: of which column, how many.

        Raises:
            Refused: the index has no such column, or its values are not counted.
        """
        counts = self._value_counts(options.column)
        shown = [ValueAnswer(value=value, rows=rows) for value, rows in counts[: options.k]]
        return ColumnValues(values=shown, distinct=len(counts))

    def _count_values(self, name: str) -> list[tuple[str, int]]:
        kinds = self.index.kinds
        if name not in kinds:
            hint = nearest(name, list(kinds)) or f"; there are {', '.join(kinds) or 'none'}"
            raise Refused(400, f"no column {name!r}{hint}")
        if kinds[name] not in ("text", "texts", "integer", "boolean"):
            raise Refused(400, f"values are counted of texts, integers and booleans, not {name}")
        column = self.index.column(name)
        own = flattened_texts(column) if kinds[name] == "texts" else column.drop_null()
        counts = pc.value_counts(own.cast(pa.large_string()))
        pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def search_image(self, image: bytes, limits: SearchLimits) -> SearchAnswer:
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
        answer = self._answer(queries, limits)
        return answer.model_copy(update={"sha256": hashlib.sha256(image).hexdigest()})

    def search_id(self, id: str, limits: SearchLimits) -> SearchAnswer:
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
        answer = self._answer(queries, limits)
        return answer.model_copy(update={"labels": self._labels_of(queries.rows)[0]})

    def search_code(
        self, code: str, limits: SearchLimits, sha256: str | None = None
    ) -> SearchAnswer:
        """Search for a code.

        Args:
            code: in hexadecimal.
            limits: how many results, how near.
            sha256: of the image that has the code: images of the same bytes come first.

        Raises:
            Refused: not a code of the index's bits, or a search to be rescored; or a bad filter.
        """
        if limits.rescore is not None:
            raise Refused(400, "a code is only signs: send the image, or its id, to rescore")
        try:
            queries = code_queries(self.index, [code])
        except SchnRayError as error:
            raise Refused(400, str(error)) from error
        if sha256 is not None:
            digest = np.frombuffer(bytes.fromhex(sha256)[:DIGEST], np.uint8)
            queries = replace(queries, contents=digest[None])
        return self._answer(queries, limits)

    def original(self, id: str) -> tuple[bytes, str]:
        """Read the file of an indexed image as it is now -> bytes, media type.

        Args:
            id: of the indexed image.

        Raises:
            Refused: the index does not have the id, the image is gone, what is there now is not an
                image, or originals are not shown.
        """
        if not self.config.originals:
            raise Refused(403, "this server shows thumbnails only (originals=false)")
        uri = self._uri(id)
        try:
            data = fetch(uri)
        except (SchnRayError, OSError) as error:
            raise Refused(404, f"the original of {id!r} is gone: moved or deleted") from error
        try:
            return data, media_type(data)  # of the bytes: a name may say anything
        except BadImage as error:
            raise Refused(404, f"the original of {id!r} is no image any more") from error

    def _uri(self, id: str) -> str:
        try:
            return self.index.uris(np.array([self.index.find(id)]))[0]
        except UnknownId as error:
            raise _unknown(id) from error

    def _thumbnail(self, id: str) -> tuple[bytes, str]:
        """Make a thumbnail of an indexed image -> bytes, media type.

        Raises:
            Refused: the index does not have the id, or the image cannot be read any more.
        """
        uri = self._uri(id)
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

    def _answer(self, queries: Queries, limits: SearchLimits) -> SearchAnswer:
        self._require_vectors(limits)
        index = self.index
        if limits.where is not None:
            index = self._filtered(limits.where)
        (result,) = search_codes(index, queries, limits)
        return SearchAnswer(
            code=queries.codes[0].tobytes().hex(),
            bits=self.index.bits,
            rows=len(self.index),
            hits=self._hits(result),
            tied=result.tied,
            within_radius=result.within_radius,
            candidates=result.candidates,
            proven=None if result.candidates is None else result.proven,
            passing=result.passing,
        )

    def _filtered(self, condition: str) -> Index:
        try:
            return self._where(condition)
        except BadCondition as error:
            raise Refused(400, str(error)) from error

    def _hits(self, result: Result) -> list[HitAnswer]:
        labels = self._labels_of(np.array(result.rows, np.int64))
        return [
            HitAnswer(id=hit.id, labels=own, distance=hit.distance, score=hit.score)
            for hit, own in zip(result.hits, labels, strict=True)
        ]

    def _labels_of(self, rows: NDArray[np.int64]) -> list[list[str] | None]:
        return [None] * len(rows) if self._labels is None else [*self._labels.of(rows)]


def _unknown(id: str) -> Refused:
    return Refused(404, f"{id!r} is not an id of the index")


def open_service(
    index: Path | str, model: Path | str, config: ServeConfig, labels: Path | str | None = None
) -> Service:
    """Open an index and the model that encoded it.

    Args:
        index: a path or a URI.
        model: a run or a model directory, a path or a URI.
        config: limits of a request.
        labels: a store of the same images, whose classes are shown; None for the index's column of
            that name, if it has one.

    Raises:
        SchnRayError: one of them is missing or damaged, another model encoded the index, or the
            store has no labels of these images.
    """
    opened = open_index(index)
    known = labels_of_index(opened, None if labels is None else open_store(labels))
    return Service(opened, load(model), config, known)
