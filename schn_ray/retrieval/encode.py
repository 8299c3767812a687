"""Code any number of images: a shard of the source in, a Parquet part with its receipt out.

A part appears whole, with its receipt inside (see ``parts``), and what is left to do is found by
comparing the receipts with what the source lists (see ``plan``). So a job that was stopped codes
only the rest, and a finished one can be brought up to date.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.bits import pack, sign
from schn_ray.core.directories import AlreadyDone, DirectoryWriter, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, is_finished, read_manifest
from schn_ray.core.memory import keep_freed_memory
from schn_ray.core.storage.files import as_location, join, kind_at, sha256_and_size
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.images import BadImage, evaluation_view
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.pending import PendingWork, ShardTask, find_pending
from schn_ray.data.shards.quarantine import refuse_too_many, write_quarantine
from schn_ray.data.shards.receipts import Receipt, UnitReceipt
from schn_ray.data.shards.repeated_ids import quarantine_rows, repeated_ids, rows_without
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, Unit, listing_sha256, units_of
from schn_ray.models.config import PrecisionName
from schn_ray.models.hasher import Hasher, load
from schn_ray.retrieval.code_files import (
    Codes,
    list_parts,
    part_path,
    read_code_receipts,
    read_column,
    read_part,
    read_receipt,
    remove_parts,
    write_part,
)
from schn_ray.retrieval.config import EncodeConfig

LISTING = "listing"


@dataclass(frozen=True)
class EncodeOptions:
    """How images become codes; see ``EncodeConfig``."""

    model: str
    batch_size: int = 64
    relaxed: bool = False
    precision: PrecisionName = "float32"


def encode_source(
    source: Source,
    model: Path | str,
    out: Path | str,
    config: EncodeConfig,
    map_shards: MapShards = map_locally,
    update: bool = False,
    retry_failed: bool = False,
) -> Manifest:
    """Code every image of a source; interrupted at any moment, the same call goes on.

    Args:
        source: where the images are.
        model: a finished run or a model directory; at a URI, a run.
        out: directory, or URI, for ``part-*.parquet``, ``quarantine.parquet`` and the manifest.
        config: see there.
        map_shards: applies a function to all shards, on whatever machines.
        update: bring ``out`` up to date with the source: new and changed images are coded, those
            that are gone leave, parts without any of them are not touched. A file counts as
            changed when its size or time of change is another one; an image is coded again only
            if its bytes have another SHA-256.
        retry_failed: try the quarantined rows again.

    Raises:
        AlreadyDone: ``out`` was finished by the same request, and there is nothing to update.
        TooManyBadRows: more of the rows than allowed could not be coded; they are named.
        SchnRayError: the source has no rows, or changed meanwhile; ``out`` holds something else.
    """
    shards = source.shards()
    hasher = load(model)
    settings = config.recorded() | {"bits": hasher.bits}
    made_from = {
        "source": source.location,
        LISTING: listing_sha256(shards),
        "model": hasher.fingerprint,
    }
    again = update or retry_failed
    coding = EncodeOptions(as_location(model), config.batch_size, config.relaxed, config.precision)
    request = settings, made_from, LISTING, again
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "codes", *request) as draft,
    ):
        there = mirror.location
        plan = _plan(draft, there, shards, config, update, retry_failed)
        if again:
            draft.begin()
        mirror.send()
        remove_parts(there, ())
        encode_shards(source, plan.tasks, coding, there, map_shards)
        # not before: what is written takes numbers after theirs, also in a run after a kill
        remove_parts(there, plan.emptied)
        _put_repeated_ids_aside(there)
        _conclude(draft, there, shards, config.source.max_bad_share)
        if again:
            draft.counts |= plan.counts | {"tried_again": plan.failed}
    return read_manifest(mirror.local, "codes")


def encode_shards(
    source: Source,
    shards: Sequence[Shard],
    coding: EncodeOptions,
    out: str,
    map_shards: MapShards = map_locally,
) -> None:
    """Write a part a shard; one that is there is written again."""
    function = functools.partial(encode_shard, source=source, coding=coding, out=out)
    for _ in map_shards(function, list(shards)):
        pass  # receipts are read from the parts, where they will also be after a kill


def encode_shard(shard: Shard, source: Source, coding: EncodeOptions, out: str) -> int:
    """Code one shard and write its part; run by whoever ``map_shards`` chooses.

    Returns:
        The part's number.

    Raises:
        SchnRayError: the shard has other rows than were listed, or the part cannot be written.
    """
    place = part_path(out, shard.number)
    old = read_part(place) if kind_at(place) else None
    kept = _kept(shard, place, old)
    hasher = _loaded(coding.model, coding.precision)
    units = units_of(shard) if shard.rows else []
    rows = _Rows(hasher, coding, shard.rows, old)
    done = _code(rows, source.read(shard), units) if units else []
    codes = rows.finished()
    if kept is not None:
        kept_codes, kept_done = kept
        codes, done = Codes.concat([kept_codes, codes]), [*kept_done, *done]
    write_part(out, codes, Receipt(shard.number, tuple(done)))
    return shard.number


class _Rows:
    """The rows of a part while they are coded: each takes its place before the network saw it.

    Args:
        hasher: the network.
        coding: how.
        size: rows at most.
        old: rows whose codes are taken over by an image of the same bytes.
    """

    def __init__(self, hasher: Hasher, coding: EncodeOptions, size: int, old: Codes | None) -> None:
        self._hasher, self._batch_size = hasher, coding.batch_size
        self._old = old
        self._places = {} if old is None else {d.tobytes(): i for i, d in enumerate(old.sha256)}
        self._ids: list[str] = []
        self._uris: list[str] = []
        self._digests: list[bytes] = []
        self._packed = np.zeros((size, -(-hasher.bits // 8)), np.uint8)
        self._relaxed = np.zeros((size, hasher.bits if coding.relaxed else 0), np.float16)
        self._views: list[NDArray[np.uint8]] = []
        self._waiting: list[int] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, row: Row) -> BadRow | None:
        """Code a row, or say why that cannot be."""
        digest, place = hashlib.sha256(row.image).digest(), len(self)
        known = self._places.get(digest)
        if known is not None and self._old is not None:
            self._packed[place] = self._old.packed[known]
            self._relaxed[place] = self._old.relaxed[known]
        else:
            try:
                view = evaluation_view(row.image, self._hasher.spec.preprocessing)
            except BadImage as error:
                return BadRow(row.id, row.uri, "decode", error.reason)
            self._views.append(view)
            self._waiting.append(place)
        self._ids.append(row.id)
        self._uris.append(row.uri)
        self._digests.append(digest)
        if len(self._views) == self._batch_size:
            self._run()
        return None

    def finished(self) -> Codes:
        """Return all rows, coded."""
        if self._views:
            self._run()
        digests = np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 32)
        n = len(self)
        return Codes(self._ids, self._uris, self._packed[:n], digests, self._relaxed[:n])

    def _run(self) -> None:
        U = self._hasher.relaxed(np.stack(self._views))
        self._packed[self._waiting] = pack(sign(U))
        if self._relaxed.shape[1]:
            self._relaxed[self._waiting] = U.numpy()
        self._views, self._waiting = [], []


def _code(rows: _Rows, read: Iterator[Row | BadRow], units: list[Unit]) -> list[UnitReceipt]:
    """Code the rows of these units -> what became of each.

    Raises:
        SchnRayError: there are more rows or fewer.
    """
    done = []
    for unit in units:
        before, bad = len(rows), list[BadRow]()
        for _ in range(unit.rows):
            row = next(read, None)
            if row is None:
                raise _changed_meanwhile(unit)
            failed = row if isinstance(row, BadRow) else rows.add(row)
            if failed:
                bad.append(failed)
        done.append(UnitReceipt(unit, len(rows) - before, tuple(bad)))
    if next(read, None) is not None:
        raise _changed_meanwhile(units[-1])
    return done


def _changed_meanwhile(unit: Unit) -> SchnRayError:
    return SchnRayError(
        f"{unit.file or 'the source'}: {unit.rows:,} rows from row {unit.start:,} on were listed, "
        "and it holds others now: it changed meanwhile. Run encode --update to take that in"
    )


def _kept(shard: Shard, place: str, old: Codes | None) -> tuple[Codes, list[UnitReceipt]] | None:
    """Return what stays of the part that is there: rows, and what they are the rows of."""
    if not isinstance(shard, ShardTask) or not shard.kept or old is None:
        return None
    staying = Counter(shard.kept)
    rows, done, start = [np.zeros(0, np.int64)], [], 0
    for before in read_receipt(place).done:
        if staying[before.unit]:
            staying[before.unit] -= 1
            rows.append(np.arange(start, start + before.coded))
            done.append(before)
        start += before.coded
    return old.take(np.concatenate(rows)), done


def _plan(
    draft: DirectoryWriter,
    there: str,
    shards: list[Shard],
    config: EncodeConfig,
    update: bool,
    retry: bool,
) -> PendingWork:
    """Compare the source with the parts.

    Raises:
        AlreadyDone: the directory is finished and nothing changed.
        SchnRayError: a finished part was changed by somebody else, or the source was, and no
            update was asked for.
    """
    if finished := is_finished(draft.path):
        _refuse_changed_parts(read_manifest(draft.path, "codes"), there)
    plan = find_pending(shards, read_code_receipts(there), config.source.shard_rows, retry)
    if finished and not plan.tasks and not plan.emptied:
        raise AlreadyDone(draft.path, "codes")
    if retry and not update and (plan.new or plan.changed or plan.gone):
        raise SchnRayError(
            f"the source changed: {plan.new:,} rows are new, {plan.changed:,} changed, "
            f"{plan.gone:,} are gone. Add --update to take that in, too"
        )
    return plan


def _refuse_changed_parts(made: Manifest, there: str) -> None:
    for name, sha256 in made.files.items():
        place = join(there, name)
        if kind_at(place) and sha256_and_size(place)[0] != sha256:
            raise SchnRayError(
                f"{place} differs from its manifest; remove this file and run encode --update: it "
                "is made again"
            )


def _put_repeated_ids_aside(out: str) -> None:
    for place, rows in repeated_ids(list_parts(out), read_column):
        codes, receipt = read_part(place), read_receipt(place)
        kept = codes.take(rows_without(len(codes.ids), rows))
        write_part(out, kept, Receipt(receipt.number, quarantine_rows(receipt.done, rows)))


def _conclude(
    draft: DirectoryWriter, there: str, shards: list[Shard], max_bad_share: float
) -> None:
    """Count, once more from the parts themselves: rows in = coded + quarantined."""
    receipts = read_code_receipts(there).values()
    rows, listed = sum(receipt.rows for receipt in receipts), sum(shard.rows for shard in shards)
    if rows != listed:
        raise SchnRayError(
            f"{listed:,} rows were listed, but the parts answer for {rows:,}: run the same command "
            "again, it goes on with what is missing"
        )
    quarantined = [row for receipt in receipts for row in receipt.quarantined]
    write_quarantine(draft.path, quarantined)
    refuse_too_many(quarantined, rows, max_bad_share)
    coded = rows - len(quarantined)
    draft.counts |= {"rows": rows, "coded": coded, "quarantined": len(quarantined)}
    draft.known |= {Path(place).name: sha256_and_size(place) for place in list_parts(there)}


@functools.lru_cache(maxsize=1)
def _loaded(model: str, precision: PrecisionName) -> Hasher:
    keep_freed_memory()
    return load(model, precision=precision)
