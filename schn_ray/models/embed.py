"""Compute features of any number of images with a backbone: a shard of the source in, vectors out.

The parts are written by the shard job (``data.shards.job``), as those of ``prepare``: rows with a
vector in place of an image. So a job that was stopped does only the rest, finished features can be
brought up to date, and the directory is a source of vectors itself.

FEATURES/rows-*.arrow   id, vector, labels, split, camera, and SHA-256 of the image, a row each
FEATURES/backbone/      the backbone that computed them
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest
from schn_ray.core.memory import keep_freed_memory
from schn_ray.core.settings import Count
from schn_ray.core.storage.files import as_location
from schn_ray.data.config import SourceReader
from schn_ray.data.images import Preprocessing, normalise
from schn_ray.data.shards.image_views import ImageView, ImageViews
from schn_ray.data.shards.job import SOURCE, JobResult, OutputRequest, ShardJob, run_shard_job
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.rows import Source
from schn_ray.data.shards.units import PartUnits
from schn_ray.data.shards.vectors import VectorFormat, arrow_vectors, numpy_vectors
from schn_ray.data.sources.stored import BACKBONE
from schn_ray.data.store.row_files import VECTOR, RowFiles, row_schema
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.saved import (
    backbone_fingerprint,
    build_fixed_backbone,
    save_backbone,
)
from schn_ray.models.config import BackboneConfig, PrecisionName
from schn_ray.models.hasher import best_device
from schn_ray.models.precision import Precision

FEATURES = "features"
_BATCH_ROWS = 256  # of the written files; their views are in memory at once


class EmbedConfig(SourceReader):
    """Settings of ``embed``.

    Attributes:
        backbone: computes the features.
        dtype: number format in which features are stored.
        batch_size: images that pass the network at once.
        precision: of the network; ``bf16`` is faster on GPUs.
    """

    backbone: BackboneConfig = BackboneConfig()
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: Count = 64
    precision: PrecisionName = "float32"

    def recorded(self) -> dict[str, Any]:
        """Return the settings that a manifest records; the backbone is an input."""
        values = super().recorded()
        del values["backbone"]["weights"]  # their content counts, not the name of their file
        return values


@dataclass(frozen=True)
class EmbedOptions:
    """How images become vectors; ``expected`` is the backbone's fingerprint."""

    backbone: BackboneConfig
    expected: str
    vectors: VectorFormat
    batch_size: int
    precision: PrecisionName


def embed_source(
    source: Source,
    out: Path | str,
    config: EmbedConfig,
    map_shards: MapShards = map_locally,
    update: bool = False,
    retry_failed: bool = False,
) -> Manifest:
    """Compute a feature vector for every image; interrupted at any moment, the same call goes on.

    Args:
        source: where the images are.
        out: directory, or URI, to write.
        config: the backbone, and how the source is read.
        map_shards: applies a function to all shards, on whatever machines; they write to ``out``.
        update: bring ``out`` up to date with the source. An image is embedded again only if its
            bytes have another SHA-256.
        retry_failed: try the quarantined rows again.

    Returns:
        The manifest. Its counts: ``rows`` (of the source) = ``embedded`` + ``quarantined``.

    Raises:
        AlreadyDone: ``out`` was finished by the same request, and there is nothing to update.
        TooManyBadRows: more rows than allowed could not be embedded; the first are named.
        SchnRayError: the backbone cannot be built or takes vectors, or ``out`` has other content.
    """
    backbone = build_fixed_backbone(config.backbone)
    if backbone.preprocessing is None:
        raise SchnRayError(f"backbone {config.backbone.name} takes vectors: there is nothing to do")
    fingerprint = backbone_fingerprint(backbone, config.backbone)
    vectors = VectorFormat(backbone.width, config.dtype)
    options = EmbedOptions(
        config.backbone, fingerprint, vectors, config.batch_size, config.precision
    )
    parts = PartFiles(as_location(out), RowFiles(vectors))
    job = ShardJob("embed", source, parts, functools.partial(embed_rows, options=options))
    request = OutputRequest(
        FEATURES,
        config.recorded(),
        {SOURCE: source.location, BACKBONE: fingerprint},
    )

    def finish(directory: Path, result: JobResult) -> dict[str, Any]:
        save_backbone(backbone, config.backbone, directory / BACKBONE)
        counts = {"rows": result.listed, "embedded": result.written}
        counts |= {"quarantined": result.quarantined, "width": backbone.width}
        return counts | (result.update.counts if result.update else {})

    arguments = config.source, map_shards, finish, update, retry_failed
    return run_shard_job(job, out, request, *arguments)


def embed_rows(units: PartUnits, options: EmbedOptions) -> Iterator[pa.RecordBatch]:
    """Embed the rows of a part.

    Args:
        units: reads the rows; images that cannot be decoded go into its receipts.
        options: how images become vectors.
    """
    network = _load_once(options.backbone, options.expected, options.precision)
    embedded = _EmbeddedRows(network, options, units.existing)
    for view in units.read(embedded.image_views.view_of):
        embedded.append(view)
        if len(embedded) == _BATCH_ROWS:
            yield embedded.take()
    if len(embedded):
        yield embedded.take()


class Embedder:
    """A backbone that turns views into feature vectors.

    Args:
        backbone: of images.
        precision: number format of the network.
        device: where it runs; by default a GPU if torch has one.
    """

    def __init__(
        self,
        backbone: Backbone,
        precision: PrecisionName = "float32",
        device: torch.device | None = None,
    ) -> None:
        assert backbone.preprocessing is not None
        self.preprocessing: Preprocessing = backbone.preprocessing
        self.device = device or best_device()
        self._precision = Precision(precision, self.device)
        # channels last: convolutions of small images take half the time on a CPU
        self._module = backbone.module.to(self.device).to(memory_format=torch.channels_last).eval()

    def vectors(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features [b, d] of evaluation views [b, 3, S, S]."""
        batch = torch.from_numpy(views).to(self.device, non_blocking=True)
        with torch.inference_mode(), self._precision.for_networks():
            images = normalise(batch, self.preprocessing)
            features = self._module(images.contiguous(memory_format=torch.channels_last))
        return features.float().cpu().numpy()


@dataclass
class _EmbeddedRows:
    """Rows of a part that wait to be written; the network sees whole batches."""

    network: Embedder
    options: EmbedOptions
    existing: pa.Table | None
    views: list[ImageView] = field(default_factory=list)

    def __post_init__(self) -> None:
        digests = [] if self.existing is None else self.existing["sha256"].to_pylist()
        self.image_views = ImageViews(self.network.preprocessing, digests)

    def __len__(self) -> int:
        return len(self.views)

    def append(self, view: ImageView) -> None:
        """Add a row."""
        self.views.append(view)

    def take(self) -> pa.RecordBatch:
        """Return the rows so far, embedded, and forget them."""
        views, self.views = self.views, []
        X = np.zeros((len(views), self.options.vectors.width), np.dtype(self.options.vectors.dtype))
        known = [at for at, view in enumerate(views) if view.pixels is None]
        if known and self.existing is not None:
            rows = pa.array([views[at].same for at in known])
            X[known] = numpy_vectors(self.existing[VECTOR].take(rows).combine_chunks())
        pixels = {at: view.pixels for at, view in enumerate(views) if view.pixels is not None}
        new = list(pixels)
        for start in range(0, len(new), self.options.batch_size):
            chunk = new[start : start + self.options.batch_size]
            with np.errstate(over="ignore"):  # what does not fit is infinite, and refused below
                X[chunk] = self.network.vectors(np.stack([pixels[at] for at in chunk]))
        _refuse_overflow(X, views)
        return _batch(views, X, self.options.vectors)


def _refuse_overflow(X: NDArray[Any], views: list[ImageView]) -> None:
    """Refuse features that are not finite; all zeros is what a network may say of an image."""
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        raise SchnRayError(
            f"image {views[bad[0]].row.id}: the backbone's features are not finite in {X.dtype}. "
            "Try --set dtype=float32, or other weights"
        )


def _batch(views: list[ImageView], X: NDArray[Any], vectors: VectorFormat) -> pa.RecordBatch:
    rows = [view.row for view in views]
    columns = {
        "id": [row.id for row in rows],
        "image": pa.nulls(len(rows), pa.large_binary()),
        "labels": [sorted(row.labels) for row in rows],
        "sha256": [view.digest for view in views],
        "split": [row.split for row in rows],
        "uri": [row.uri for row in rows],
        "camera": [row.camera for row in rows],
        "scale": pa.nulls(len(rows), pa.float32()),
        VECTOR: arrow_vectors(X),
    }
    return pa.record_batch(columns, row_schema(vectors))


@functools.lru_cache(maxsize=1)
def _load_once(config: BackboneConfig, expected: str, precision: PrecisionName) -> Embedder:
    keep_freed_memory()
    backbone = build_fixed_backbone(config)
    if backbone_fingerprint(backbone, config) != expected:
        raise SchnRayError(
            f"backbone {config.name} has other weights on this machine than where embed was "
            "started: give --weights FILE on a disk that all machines share"
        )
    return Embedder(backbone, precision)
