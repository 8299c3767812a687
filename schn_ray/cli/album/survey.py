"""Look at a source before an album is made of it: what it holds, and how long each image takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import BadImage, downsized, evaluation_view
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, shard_of, units_of
from schn_ray.data.shards.vectors import vectors_of
from schn_ray.models.backbones.saved import build_fixed_backbone
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import Embedder

STORED_SIDE, STORED_QUALITY = 512, 90  # of the copies in the store: for the report and fine-tuning
_SHARDS, _ROWS = 4, 16  # so many rows are looked at, of so many shards


@dataclass(frozen=True)
class Survey:
    """What a source holds, as far as a few of its rows tell.

    Attributes:
        rows: of the source, bad ones included.
        vectors: whether its rows have embeddings and no images.
        sampled: rows that were read.
        labelled: of these, rows with a label.
        bad: of these, rows that cannot be used.
        seconds_each: that an image took in this process, from its file to its features.
    """

    rows: int
    vectors: bool
    sampled: int
    labelled: int
    bad: int
    seconds_each: float


def survey(source: Source, config: SourceConfig, backbone: BackboneConfig) -> Survey:
    """List a source, read a few rows, and time how long images take.

    Args:
        source: the photos or embeddings.
        config: how they are read.
        backbone: computes the features of photos; built, so that a wrong name shows at once.

    Raises:
        SchnRayError: no rows, a backbone that cannot be built, or none of the rows can be used.
    """
    shards = list(source.shards())
    rows = sum(shard.rows for shard in shards)
    if not rows:
        raise SchnRayError(f"{source.location}: no images")
    started = time.perf_counter()
    chosen = _spread(shards)
    sample = [row for shard in chosen for row in _few_rows(source, shard, _ROWS // len(chosen))]
    seconds = time.perf_counter() - started
    good = [row for row in sample if isinstance(row, Row)]
    labelled = sum(bool(row.labels) for row in good)
    vectors = vectors_of(source)
    if vectors is not None and not vectors.images:
        each = seconds / max(1, len(sample))
        return Survey(rows, True, len(sample), labelled, len(sample) - len(good), each)
    images = [row.image for row in good if row.image is not None]
    work, usable = _time_images(images, config, backbone)
    if not usable:
        raise SchnRayError(
            f"{source.location}: none of {len(sample)} images that were tried can be read; "
            "schn-ray check says why"
        )
    each = seconds / len(sample) + work / usable
    return Survey(rows, False, len(sample), labelled, len(sample) - usable, each)


def _spread(shards: list[Shard]) -> list[Shard]:
    """Return a few shards, from the first to the last."""
    at = np.unique(np.linspace(0, len(shards) - 1, _SHARDS).round().astype(int))
    return [shards[number] for number in at]


def _few_rows(source: Source, shard: Shard, count: int) -> Iterator[Row | BadRow]:
    units = units_of(shard)
    step = -(-len(units) // count)
    yield from islice(source.read(shard_of(shard.number, units[::step])), count)


def _time_images(
    images: list[bytes], config: SourceConfig, backbone: BackboneConfig
) -> tuple[float, int]:
    """Return how long images take, and how many of them can be used."""
    network = Embedder(build_fixed_backbone(backbone))
    side = network.preprocessing.crop
    network.vectors(np.zeros((len(images) or 1, 3, side, side), np.uint8))  # the first is slower
    started, views = time.perf_counter(), []
    for image in images:
        try:
            downsized(image, config.max_pixels, STORED_SIDE, STORED_QUALITY)
            views.append(evaluation_view(image, network.preprocessing))
        except BadImage:
            continue
    if views:
        network.vectors(np.stack(views))
    return time.perf_counter() - started, len(views)


def survey_text(kind: str, surveyed: Survey) -> str:
    """Return what was found, and how long it will take, as lines.

    Args:
        kind: layout of the source.
        surveyed: what was found.
    """
    things = "embeddings" if surveyed.vectors else "images"
    labels = "none has a label" if not surveyed.labelled else f"{surveyed.labelled} have labels"
    bad = f", {surveyed.bad} cannot be read" if surveyed.bad else ""
    seconds = surveyed.rows * surveyed.seconds_each
    return (
        f"  {surveyed.rows:,} {things} ({kind}); of {surveyed.sampled} that were looked at, "
        f"{labels}{bad}\n"
        f"  reading them will take about {seconds_text(seconds)} of one process, by the time of "
        f"these {surveyed.sampled}; training and measuring come on top"
    )


def seconds_text(seconds: float) -> str:
    """Return a length of time in words.

    Args:
        seconds: how long.

    Example:
        >>> seconds_text(4.2), seconds_text(400), seconds_text(8000)
        ('5 s', '7 min', '2.2 h')
    """
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
