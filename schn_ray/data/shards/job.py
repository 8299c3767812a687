"""One job over the shards of a source: ``prepare`` and ``encode`` differ in what a row becomes.

The driver lists what is left to do (``pending``), workers write parts (``part_files``), and the
driver counts rows from the receipts. Killed at any moment, the same call does only the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from schn_ray.core.directories import AlreadyDone, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, is_finished, read_manifest
from schn_ray.core.storage.files import join, kind_at, sha256_and_size
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.map_shards import MapShards
from schn_ray.data.shards.part_files import PartFiles, take_rows
from schn_ray.data.shards.pending import PendingWork, find_pending
from schn_ray.data.shards.quarantine import refuse_too_many, write_quarantine
from schn_ray.data.shards.receipts import Receipt
from schn_ray.data.shards.repeated_ids import quarantine_rows, repeated_ids, rows_without
from schn_ray.data.shards.rows import Shard, Source, listing_sha256
from schn_ray.data.shards.units import PartUnits

LISTING = "listing"


@dataclass(frozen=True)
class ShardJob:
    """What a command makes of the shards of a source. Small to pickle: workers get it.

    Attributes:
        command: its name, for errors.
        source: where rows are read.
        parts: where they are written.
        make_batches: reads the rows of one part with ``PartUnits.read`` and yields what is to be
            written, in the same order, a batch at a time.
    """

    command: str
    source: Source
    parts: PartFiles
    make_batches: Callable[[PartUnits], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class OutputRequest:
    """What the directory is, and what it is made from.

    Attributes:
        kind: of the directory, see ``Manifest``.
        config: settings that decide what is written.
        made_from: name of each input -> its fingerprint; the listing is added by the job.
        free: settings that may change until the directory is finished.
        verify_update: whether an update first compares every file with the manifest's SHA-256.
    """

    kind: str
    config: dict[str, Any]
    made_from: dict[str, Any]
    free: tuple[str, ...] = ()
    verify_update: bool = False


@dataclass(frozen=True)
class JobResult:
    """What a job counted: ``listed`` = ``written`` + ``quarantined`` rows.

    Attributes:
        listed: rows of the source.
        written: rows of all parts.
        quarantined: rows that are in no part.
        numbers: of the parts, ascending.
        update: what changed in the source; None where this was not an update.
    """

    listed: int
    written: int
    quarantined: int
    numbers: tuple[int, ...]
    update: PendingWork | None


Finish = Callable[[Path, JobResult], dict[str, Any]]


def run_shard_job(
    job: ShardJob,
    shards: list[Shard],
    out: Path | str,
    request: OutputRequest,
    config: SourceConfig,
    map_shards: MapShards,
    finish: Finish,
    update: bool = False,
    retry_failed: bool = False,
) -> Manifest:
    """Write the parts of all shards, their receipts, ``quarantine.parquet`` and the manifest.

    Args:
        job: what to do with a shard.
        shards: all that the source lists now.
        out: the directory, or its URI: that of ``job.parts``.
        request: what the directory is.
        config: rows per part, and how many rows may be bad.
        map_shards: applies a function to all shards, on whatever machines.
        finish: called when all parts are written: (local directory, result) -> manifest counts.
        update: bring a finished directory up to date with the source.
        retry_failed: read quarantined rows again.

    Raises:
        AlreadyDone: ``out`` was finished by the same request, and nothing changed.
        TooManyBadRows: more rows are bad than ``config`` allows.
        SchnRayError: the source changed, or ``out`` has another content.
    """
    again = update or retry_failed
    made_from = request.made_from | {LISTING: listing_sha256(shards)}
    settings = request.config, made_from, LISTING, again, request.free
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, request.kind, *settings) as writer,
    ):
        _refuse_changed_output(writer.path, request, job.parts)
        receipts = job.parts.read_receipts()
        pending = find_pending(shards, receipts, config.shard_rows, retry_failed)
        if is_finished(writer.path) and not pending.tasks and not pending.emptied:
            raise AlreadyDone(writer.path, request.kind)
        if retry_failed and not update:
            _refuse_changed_source(pending)
        if again:
            writer.begin()
        mirror.send()
        job.parts.remove_leftovers()
        write_parts(job, pending.tasks, map_shards)
        # not before: new parts have higher numbers than these, also in a run after a kill
        job.parts.remove(pending.emptied)
        receipts = job.parts.read_receipts()
        job.parts.remove_leftovers()  # of workers that were killed meanwhile
        receipts |= _quarantine_repeated_ids(job.parts, receipts)
        result = _count(shards, receipts, pending if again else None)
        bad_rows = [row for receipt in receipts.values() for row in receipt.quarantined]
        write_quarantine(writer.path, bad_rows)
        refuse_too_many(bad_rows, result.listed, config.max_bad_share)
        writer.counts |= finish(writer.path, result)
        writer.known |= job.parts.known_files(receipts.values())
    return read_manifest(mirror.local, request.kind)


def write_parts(job: ShardJob, shards: Sequence[Shard], map_shards: MapShards) -> None:
    """Write a part per shard; older parts of these numbers are replaced.

    Args:
        job: what to do with a shard.
        shards: their numbers become those of the parts.
        map_shards: applies a function to all shards, on whatever machines.
    """
    for _ in map_shards(functools.partial(write_part, job=job), list(shards)):
        pass  # the receipts say what was written, also after a kill


def write_part(shard: Shard, job: ShardJob) -> int:
    """Write the part of one shard, on the machine that ``map_shards`` chooses.

    Args:
        shard: what to read; a ``ShardTask`` may have units that stay as they are.
        job: what to do with it.

    Returns:
        The part's number.

    Raises:
        SchnRayError: the shard has other rows than were listed, or the part cannot be written.
    """
    units = PartUnits(shard, job.source, job.parts, job.command)
    job.parts.write(shard.number, _all_batches(units, job), units.receipts)
    return shard.number


def _all_batches(units: PartUnits, job: ShardJob) -> Iterator[pa.RecordBatch]:
    yield from units.unchanged()
    if units.shard.rows:
        yield from job.make_batches(units)


def _refuse_changed_output(path: Path, request: OutputRequest, parts: PartFiles) -> None:
    """Refuse a finished directory of another format, or with files that were changed since."""
    if not is_finished(path):
        return
    manifest = read_manifest(path, request.kind)
    for name, sha256 in manifest.files.items() if request.verify_update else ():
        location = join(parts.location, name)
        if kind_at(location) and sha256_and_size(location)[0] != sha256:
            raise SchnRayError(
                f"{location} differs from its manifest; remove this file and run the same command "
                "with --update: it is made again"
            )


def _refuse_changed_source(pending: PendingWork) -> None:
    if pending.new or pending.changed or pending.gone:
        raise SchnRayError(
            f"the source changed: {pending.new:,} rows are new, {pending.changed:,} changed, "
            f"{pending.gone:,} are gone. Add --update to take that in, too"
        )


def _quarantine_repeated_ids(parts: PartFiles, receipts: dict[int, Receipt]) -> dict[int, Receipt]:
    """Take out rows whose id an earlier row has; return the receipts of parts written again."""
    changed = {}
    for number, rows in repeated_ids(list(receipts), parts.read_strings):
        table, units = parts.read(number), receipts[number].units
        remaining = take_rows(table, rows_without(len(table), rows))
        changed[number] = parts.write(number, remaining, quarantine_rows(units, rows))
    return changed


def _count(
    shards: Sequence[Shard], receipts: dict[int, Receipt], update: PendingWork | None
) -> JobResult:
    listed = sum(shard.rows for shard in shards)
    written = sum(receipt.written for receipt in receipts.values())
    quarantined = sum(len(receipt.quarantined) for receipt in receipts.values())
    if written + quarantined != listed:
        raise SchnRayError(
            f"{listed:,} rows were listed, but {written:,} are written and {quarantined:,} "
            "quarantined: run the same command again, it goes on with what is missing"
        )
    return JobResult(listed, written, quarantined, tuple(receipts), update)
