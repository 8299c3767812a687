"""A source into a store: shard by shard, on any machines; stopped at any moment, it goes on.

The rows are written by the shard job (``data.shards.job``), as those of ``encode``; vocabulary
and split follow when all rows are there.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from schn_ray.core.directories import another_request, difference, request_of
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest
from schn_ray.core.storage.cache import manifest_at
from schn_ray.core.storage.files import as_location
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.job import SOURCE, JobResult, OutputRequest, ShardJob, run_shard_job
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.quarantine import QUARANTINE
from schn_ray.data.shards.rows import Entry, Shard, Source
from schn_ray.data.shards.vectors import vectors_of
from schn_ray.data.splits.given import read_ids
from schn_ray.data.splits.protocols import GIVEN, RANDOM, find_protocol
from schn_ray.data.store.describe import describe_and_split
from schn_ray.data.store.row_files import RowFiles
from schn_ray.data.store.store_rows import ImageOptions, store_rows

# settings that are used when all rows are there, and may change until then
_SPLIT_SETTINGS = (
    "protocol",
    "split_from",
    "seed",
    "query_share",
    "train_share",
    "validation_share",
    "keep_unlabelled",
    "unseen_share",
    "split",  # the content of split_from
)


def prepare_store(
    source: Source,
    config: PrepareConfig,
    out: Path | str,
    map_shards: MapShards = map_locally,
    update: bool = False,
) -> Manifest:
    """Write a store: every image decoded once, vectors checked, bad rows aside, the split drawn.

    Interrupted at any moment, the same call does only the rest.

    Args:
        source: where the rows come from.
        config: what is bad, how images are stored, which protocol, which seed.
        out: the directory to write, or a URI; no verb reads it before it is finished.
        map_shards: applies a function to all shards, on whatever machines; they write to ``out``.
        update: bring ``out`` up to date with the source: new and changed rows are read, rows that
            are gone leave, and files of rows without any of them are not touched. The split is
            drawn anew.

    Returns:
        The manifest. Its counts: ``rows_read`` = ``rows`` (stored) + ``quarantined``.

    Raises:
        AlreadyDone: this very store exists.
        SchnRayError: ``out`` has another content, or these rows do not make the split.
        TooManyBadRows: more than ``max_bad_share`` of the rows are bad; the first are named.
    """
    config = _with_protocol(config)
    vectors = vectors_of(source)  # known now, it travels to the workers with the source
    parts = PartFiles(as_location(out), RowFiles(vectors))
    options = ImageOptions(config.source.max_pixels, config.largest_side, config.quality)
    make_batches = functools.partial(store_rows, options=options, vectors=vectors)
    job = ShardJob("prepare", source, parts, make_batches, _with_labels)

    def finish(directory: Path, result: JobResult) -> dict[str, Any]:
        if not result.written:
            raise SchnRayError(
                f"none of the {result.listed:,} rows can be used; {QUARANTINE} in {out} has them "
                f"all, with their reasons:\n{result.quarantine}"
            )
        counts: dict[str, Any] = {"rows_read": result.listed, "quarantined": result.quarantined}
        try:
            counts |= describe_and_split(parts, result.numbers, directory, config)
        except SchnRayError as error:
            raise SchnRayError(
                f"{error}.\nThe rows are written, the split is not: the same command with another "
                f"--protocol, --split-from, --seed or share goes on with {out}"
            ) from error
        if vectors is not None:
            counts |= {"vector_width": vectors.width, "vector_dtype": vectors.dtype}
        return counts | (result.update.counts if result.update else {})

    request = OutputRequest("store", config.recorded(), _inputs(source, config), _SPLIT_SETTINGS)
    return run_shard_job(job, out, request, config.source, map_shards, finish, update)


def require_settings(store: str, config: PrepareConfig) -> None:
    """Refuse a finished store that other settings made; its source need not be at hand.

    Args:
        store: directory or URI.
        config: the settings that it should have.

    Raises:
        SchnRayError: it has others, or is damaged.
    """
    now = request_of("store", _with_protocol(config).recorded(), {})
    before = request_of("store", manifest_at(store, "store").config, {})
    if lines := difference(before, now):
        raise another_request(store, lines)


def _with_protocol(config: PrepareConfig) -> PrepareConfig:
    if config.split_from is None:
        find_protocol(config.protocol)  # a typing mistake should not show after hours
        return config
    file = Path(config.split_from).absolute()
    if not file.is_file():
        raise SchnRayError(f"--split-from {file}: no such file")
    read_ids(file)
    name = GIVEN if config.protocol == RANDOM else config.protocol
    find_protocol(name)
    return config.model_copy(update={"split_from": str(file), "protocol": name})


def _with_labels(shard: Shard) -> Shard:
    """Add what a list says of an image to its stamp: another label is a change, too."""
    if not shard.entries:
        return shard
    return replace(shard, stamps=tuple(map(_with_entry, shard.stamps, shard.entries)))


def _with_entry(stamp: str, entry: Entry) -> str:
    text = repr((entry.labels, entry.problem, entry.split, entry.camera))
    return f"{stamp} {zlib.crc32(text.encode(errors='surrogateescape')):08x}"


def _inputs(source: Source, config: PrepareConfig) -> dict[str, Any]:
    inputs = {SOURCE: f"{source.kind}:{source.location}"}
    if (vectors := vectors_of(source)) is not None:
        inputs["vectors"] = f"{vectors} with images" if vectors.images else str(vectors)
    if config.split_from is not None:
        inputs["split"] = hashlib.sha256(Path(config.split_from).read_bytes()).hexdigest()
    return inputs
