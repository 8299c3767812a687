"""A source into a store: shard by shard, anywhere; stopped at any moment, it goes on.

Rows appear with a receipt (see ``files``), and what is left to do is found by comparing receipts
with what the source lists (see ``plan``), exactly as ``encode`` does it.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from schn_ray.core.directories import AlreadyDone, DirectoryWriter, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, is_finished, read_manifest
from schn_ray.core.storage.files import join, read_file
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.pending import PendingWork, find_pending
from schn_ray.data.shards.quarantine import refuse_too_many, write_quarantine
from schn_ray.data.shards.rows import Shard, Source, listing_sha256
from schn_ray.data.splits.protocols import GIVEN, RANDOM, find_protocol
from schn_ray.data.store.describe import describe_and_split, quarantine_repeated_ids
from schn_ray.data.store.row_files import (
    Written,
    read_receipts,
    receipt_name,
    remove_rows,
    rows_name,
)
from schn_ray.data.store.store_shard import ImageOptions, store_shard

LISTING = "listing"
# what is decided when all rows are there, and may be decided otherwise until then
_OF_THE_SPLIT = (
    "protocol",
    "split_from",
    "seed",
    "query_share",
    "train_share",
    "validation_share",
    "keep_unlabelled",
    "unseen_share",
)


def prepare_store(
    source: Source,
    config: PrepareConfig,
    out: Path | str,
    map_shards: MapShards = map_locally,
    update: bool = False,
) -> Manifest:
    """Write a store: every image decoded once, bad rows put aside, the split drawn.

    Interrupted at any moment, the same call does only the rest.

    Args:
        source: where the rows come from.
        config: what is bad, how images are kept, which protocol, which seed.
        out: the directory to write, or a URI; it counts when all is done.
        map_shards: does the work on whatever machines; they write to ``out``.
        update: bring ``out`` up to date with the source: new and changed rows are read, those
            that are gone leave, files of rows without any of them are not touched. The split is
            drawn anew.

    Returns:
        The manifest. Its counts: ``rows_read`` = ``rows`` (stored) + ``quarantined``.

    Raises:
        AlreadyDone: this very store exists.
        SchnRayError: ``out`` holds something else, or these rows do not make the split.
        TooManyBadRows: more than ``max_bad_share`` of the rows are bad; the first are named.
    """
    config = _with_protocol(config)
    shards = _with_labels(source.shards())
    settings, made_from = _request(source, shards, config)
    keeping = ImageOptions(config.source.max_pixels, config.largest_side, config.quality)
    request = settings, made_from, LISTING, update, _OF_THE_SPLIT
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "store", *request) as draft,
    ):
        store = mirror.location
        plan = _plan(draft, store, shards, config, update)
        if update:
            draft.begin()
        mirror.send()
        remove_rows(store, ())
        work = functools.partial(store_shard, source=source, keeping=keeping, store=store)
        for _ in map_shards(work, list(plan.tasks)):
            pass  # what became of them is read from the receipts, where it also is after a kill
        # not before: what is written takes numbers after theirs, also in a run after a kill
        remove_rows(store, plan.emptied)
        quarantine_repeated_ids(store, sorted(read_receipts(store)))
        _conclude(draft, store, shards, config)
        if update:
            draft.counts |= plan.counts
    return read_manifest(mirror.local, "store")


def _with_protocol(config: PrepareConfig) -> PrepareConfig:
    if config.split_from is None:
        find_protocol(config.protocol)  # a typing mistake should not show after hours
        return config
    file = Path(config.split_from).absolute()
    if not file.is_file():
        raise SchnRayError(f"--split-from {file}: no such file")
    name = GIVEN if config.protocol == RANDOM else config.protocol
    find_protocol(name)
    return config.model_copy(update={"split_from": str(file), "protocol": name})


def _with_labels(shards: list[Shard]) -> list[Shard]:
    """Let a shard's stamps be others when a list labels an image otherwise."""
    return [
        replace(shard, stamps=tuple(map(_stamped, shard.stamps, shard.entries)))
        if shard.entries
        else shard
        for shard in shards
    ]


def _stamped(stamp: str, entry: Any) -> str:
    said = repr((entry.labels, entry.problem, entry.split, entry.camera))
    return f"{stamp} {zlib.crc32(said.encode(errors='surrogateescape')):08x}"


def _request(
    source: Source, shards: list[Shard], config: PrepareConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    made_from = {"source": f"{source.kind}:{source.location}", LISTING: listing_sha256(shards)}
    if config.split_from is not None:
        made_from["split"] = hashlib.sha256(Path(config.split_from).read_bytes()).hexdigest()
    return config.recorded(), made_from


def _plan(
    draft: DirectoryWriter, store: str, shards: list[Shard], config: PrepareConfig, update: bool
) -> PendingWork:
    receipts = {number: written.receipt for number, written in read_receipts(store).items()}
    plan = find_pending(shards, receipts, config.source.shard_rows)
    if update and is_finished(draft.path) and not plan.tasks and not plan.emptied:
        raise AlreadyDone(draft.path, "store")
    return plan


def _conclude(
    draft: DirectoryWriter, store: str, shards: list[Shard], config: PrepareConfig
) -> None:
    """Count, from the receipts: rows in = stored + quarantined; then describe and split."""
    written = read_receipts(store)
    receipts = [written[number].receipt for number in sorted(written)]
    bad_rows = [row for receipt in receipts for row in receipt.quarantined]
    rows_read, stored = sum(s.rows for s in shards), sum(r.coded for r in receipts)
    if stored + len(bad_rows) != rows_read:
        raise SchnRayError(
            f"{rows_read:,} rows were listed, but {stored:,} stored and {len(bad_rows):,} put "
            "aside: run the same command again, it goes on with what is missing"
        )
    write_quarantine(draft.path, bad_rows)
    refuse_too_many(bad_rows, rows_read, config.source.max_bad_share)
    draft.counts |= {"rows_read": rows_read, "quarantined": len(bad_rows)}
    draft.counts |= describe_and_split(store, sorted(written), draft.path, config)
    draft.known |= _known(store, written.values())


def _known(store: str, written: Iterable[Written]) -> dict[str, tuple[str, int]]:
    known = {}
    for one in written:
        known[rows_name(one.receipt.number)] = (one.sha256, one.size)
        data = read_file(join(store, name := receipt_name(one.receipt.number)))
        known[name] = (hashlib.sha256(data).hexdigest(), len(data))
    return known
