"""Encode any number of images or vectors: a shard of the source in, a Parquet part of codes out.

The parts are written by the shard job (``data.shards.job``). So a job that was stopped encodes
only the rest, and finished codes can be brought up to date.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.bits import pack_signs
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.memory import keep_freed_memory
from schn_ray.core.storage.files import as_location
from schn_ray.data.shards.image_views import ImageView, ImageViews
from schn_ray.data.shards.job import (
    SOURCE,
    JobResult,
    OutputRequest,
    ShardJob,
    run_shard_job,
    write_parts,
)
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.rows import Shard, Source
from schn_ray.data.shards.units import PartUnits
from schn_ray.data.shards.vectors import VectorFormat, numpy_vectors, vector_sha256, vectors_of
from schn_ray.data.sources.stored import features_backbone
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.config import PrecisionName
from schn_ray.models.load import describe_model, load, pinned
from schn_ray.models.model_files import HasherSpec
from schn_ray.retrieval.code_files import (
    SHA256,
    CodeFiles,
    code_batch,
    code_features,
    packed_codes,
    relaxed_codes,
)
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.index.vectors import as_int8


@dataclass(frozen=True)
class EncodeOptions:
    """How rows become codes; see ``EncodeConfig``.

    With ``vectors``, rows are vectors of this format and not images.
    """

    model: str
    batch_size: int = 64
    relaxed: bool = False
    features: bool = False
    precision: PrecisionName = "float32"
    vectors: VectorFormat | None = None
    bits: int | None = None


def encode_source(
    source: Source,
    model: Path | str,
    out: Path | str,
    config: EncodeConfig,
    map_shards: MapShards = map_locally,
    update: bool = False,
    retry_failed: bool = False,
) -> Manifest:
    """Encode every row of a source; interrupted at any moment, the same call goes on.

    Args:
        source: where the images are, or the vectors, if the model takes those. A model with a
            frozen backbone also takes the features that ``embed`` computed with it.
        model: a finished run or a model directory; at a URI, a run. Or an ONNX file that ``export``
            wrote.
        out: directory, or URI, for ``data/part-*.parquet``, ``quarantine.parquet`` and the
            manifest.
        config: how the source is read, and how images become codes.
        map_shards: applies a function to all shards, on whatever machines; they write to ``out``.
        update: bring ``out`` up to date with the source: new and changed images are encoded,
            images that are gone leave, and parts without any of them are not touched. A file
            counts as changed when its size or time of change differs; its images are encoded
            again only if their bytes have another SHA-256.
        retry_failed: try the quarantined rows again.

    Returns:
        The manifest. Its counts: ``rows`` (of the source) = ``encoded`` + ``quarantined``.

    Raises:
        AlreadyDone: ``out`` was finished by the same request, and there is nothing to update.
        TooManyBadRows: more rows than allowed could not be encoded; the first are named.
        SchnRayError: the source has no rows, or changed meanwhile; ``out`` has another content.
    """
    location = pinned(model)
    described = describe_model(location)
    spec = described.spec if config.bits is None else described.spec.first(config.bits)
    options = EncodeOptions(
        location,
        config.batch_size,
        config.relaxed,
        config.features,
        config.precision,
        require_input(source, spec),
        config.bits,
    )
    request = OutputRequest(
        "codes",
        config.recorded() | {"bits": spec.bits},
        {SOURCE: source.location, **described.recorded()},
    )
    arguments = config.source, map_shards, _counts, update, retry_failed
    try:
        return run_shard_job(_job(source, options, out), out, request, *arguments)
    except AlreadyDone as done:
        before = read_manifest(done.path, "codes").made_from[SOURCE]
        if before == source.location:
            raise
        note = f"; its rows have addresses in {before}, --update gives them those of now"
        raise AlreadyDone(done.path, done.kind, done.location, note) from done


def _counts(_: Path, result: JobResult) -> dict[str, Any]:
    counts = {"rows": result.listed, "encoded": result.written, "quarantined": result.quarantined}
    if result.update is None:
        return counts
    return counts | result.update.counts | {"tried_again": result.update.failed}


def encode_shards(
    source: Source,
    shards: Iterable[Shard],
    options: EncodeOptions,
    out: str,
    map_shards: MapShards = map_locally,
) -> dict[str, tuple[str, int]]:
    """Write a part of codes per shard into a directory that another verb finishes.

    Parts that a killed call left are removed first: they may be another model's.

    Args:
        source: where the images are.
        shards: of the source.
        options: how images become codes.
        out: a directory, or its URI.
        map_shards: applies a function to all shards, on whatever machines; they write to ``out``.

    Returns:
        Name, relative to ``out`` -> (SHA-256, bytes), of each file written.
    """
    job = _job(source, options, out)
    job.parts.remove(job.parts.numbers())
    job.parts.remove_leftovers()
    write_parts(job, shards, map_shards)
    files: dict[str, tuple[str, int]] = {}
    for _ in job.parts.totals(job.parts.numbers(), files):
        pass
    return files


def _job(source: Source, options: EncodeOptions, out: Path | str) -> ShardJob:
    parts = PartFiles(as_location(out), CodeFiles())
    return ShardJob("encode", source, parts, functools.partial(encode_rows, options=options))


def require_input(source: Source, spec: HasherSpec) -> VectorFormat | None:
    """Check that a source has what a model takes.

    Args:
        source: of images, of vectors, or both.
        spec: of the model.

    Returns:
        The format of the vectors to encode; None: its images are.

    Raises:
        SchnRayError: vectors of another width, features of another backbone, or no vectors.
    """
    vectors = vectors_of(source)
    if spec.preprocessing is None:
        if vectors is None:
            raise SchnRayError(
                f"the model takes vectors of {spec.width} numbers, and {source.location} "
                "has images; embed them first, with the backbone that the vectors came from"
            )
    elif vectors is None or vectors.images:
        return None
    elif features_backbone(source) != spec.backbone_sha256:
        raise SchnRayError(
            f"{source.location} has vectors that the model's backbone ({spec.backbone}) did "
            "not compute; encode the images, or features that embed made with this backbone"
        )
    if vectors.width != spec.width:
        raise SchnRayError(
            f"the model takes vectors of {spec.width} numbers, and those of "
            f"{source.location} have {vectors.width}"
        )
    return vectors


def encode_rows(units: PartUnits, options: EncodeOptions) -> Iterator[pa.RecordBatch]:
    """Encode the rows of a part.

    Args:
        units: reads the rows; those that cannot be used go into its receipts.
        options: how rows become codes.

    Yields:
        The codes; those of images as one batch.
    """
    hasher = _load_once(options.model, options.precision)
    hasher = hasher if options.bits is None else hasher.first(options.bits)
    if options.vectors is not None:
        yield from _encoded_vectors(units, hasher.of_features(), options, options.vectors)
        return
    rows = _EncodedRows(hasher, options, units.shard.rows, units.existing)
    for view in units.read(rows.views.view_of):
        rows.append(view)
    yield rows.batch()


def _encoded_vectors(
    units: PartUnits, hasher: BaseHasher, options: EncodeOptions, vectors: VectorFormat
) -> Iterator[pa.RecordBatch]:
    for batch in units.read_vectors(vectors):
        X = numpy_vectors(batch["vector"])
        F, U = hasher.output_arrays(X.astype(np.float32))
        relaxed = U.astype(np.float16) if options.relaxed else np.zeros((len(X), 0), "f2")
        features = as_int8(F) if options.features else np.zeros((len(X), 0), np.int8)
        of_vectors = vector_sha256(X)
        known = pc.coalesce(batch["image_sha256"], of_vectors)
        digests = packed_codes(pa.table({SHA256: known}), SHA256)
        yield code_batch(batch["id"], batch["uri"], pack_signs(U), digests, relaxed, features)


class _EncodedRows:
    """The rows of a part. A row gets its number before the network has seen its batch.

    Args:
        hasher: the network.
        options: how images become codes.
        size: rows at most.
        existing: rows whose codes are used again for images of the same bytes.
    """

    def __init__(
        self, hasher: BaseHasher, options: EncodeOptions, size: int, existing: pa.Table | None
    ) -> None:
        self._hasher, self._batch_size = hasher, options.batch_size
        self._packed = np.zeros((size, -(-hasher.bits // 8)), np.uint8)
        self._relaxed = np.zeros((size, hasher.bits if options.relaxed else 0), np.float16)
        width = hasher.spec.width if options.features else 0
        self._features = np.zeros((size, width), np.int8)
        self._ids: list[str] = []
        self._uris: list[str] = []
        self._digests: list[bytes] = []
        self._waiting: list[tuple[int, NDArray[np.uint8]]] = []
        known = () if existing is None else map(bytes, packed_codes(existing, SHA256))
        self.views = ImageViews(hasher.of_images(), known)
        if existing is not None:
            self._old_packed, self._old_relaxed = packed_codes(existing), relaxed_codes(existing)
            self._old_features = code_features(existing)

    def append(self, view: ImageView) -> None:
        """Add a row; run the network when a batch is full."""
        number = len(self._ids)
        self._ids.append(view.row.id)
        self._uris.append(view.row.uri)
        self._digests.append(view.digest)
        if view.pixels is None:
            self._packed[number] = self._old_packed[view.same]
            self._relaxed[number] = self._old_relaxed[view.same]
            self._features[number] = self._old_features[view.same]
            return
        self._waiting.append((number, view.pixels))
        if len(self._waiting) == self._batch_size:
            self._run()

    def batch(self) -> pa.RecordBatch:
        """Return all rows, encoded."""
        if self._waiting:
            self._run()
        digests = np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 32)
        n = len(self._ids)
        columns = self._packed[:n], digests, self._relaxed[:n], self._features[:n]
        return code_batch(self._ids, self._uris, *columns)

    def _run(self) -> None:
        rows = [row for row, _ in self._waiting]
        views = np.stack([pixels for _, pixels in self._waiting])
        F, U = self._hasher.output_arrays(views)
        self._packed[rows] = pack_signs(U)
        if self._relaxed.shape[1]:
            self._relaxed[rows] = U
        if self._features.shape[1]:
            self._features[rows] = as_int8(F if F.size else self._hasher.feature_array(views))
        self._waiting = []


@functools.lru_cache(maxsize=1)
def _load_once(model: str, precision: PrecisionName) -> BaseHasher:
    keep_freed_memory()
    return load(model, precision=precision)
