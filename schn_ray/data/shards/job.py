"""One job over the shards of a source: its commands differ in what a row becomes.

The source is listed while its first shards are written (``streamed_listing``), or once as a whole
where parts must be matched with it (``pending``). Workers write parts (``part_files``), and the
driver counts rows from the receipts. Killed at any moment, the same call does only the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from schn_ray.core.directories import AlreadyDone, DirectoryWriter, resumable_directory
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError, SourceHasChanged
from schn_ray.core.manifest import MANIFEST, REQUEST, Manifest, is_finished, read_manifest
from schn_ray.core.storage.files import join, kind_at, sha256_and_size, size_and_stamp
from schn_ray.core.storage.mirror import Mirror, open_output
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.listing_pieces import PieceFiles
from schn_ray.data.shards.map_shards import MapShards
from schn_ray.data.shards.moved import changes_since_move, former_location
from schn_ray.data.shards.part_files import PartFiles, take_rows
from schn_ray.data.shards.pending import (
    Changes,
    PendingWork,
    SourceChanged,
    UnwrittenShards,
    find_pending,
    without_stamp,
)
from schn_ray.data.shards.quarantine import Quarantine, refuse_too_many, write_quarantine
from schn_ray.data.shards.repeated_ids import quarantine_rows, repeated_ids, rows_without
from schn_ray.data.shards.rows import (
    BadRow,
    Listed,
    Shard,
    Source,
    listing_sha256,
    shards_after,
    units_of,
)
from schn_ray.data.shards.streamed_listing import StreamedListing
from schn_ray.data.shards.units import PartUnits

LISTING, SOURCE = "listing", "source"
HEIC_SKIPPED = "heic_skipped"  # a count of the manifest, where there are any
# in an unfinished directory's request: what an update found; whether its source was moved
_CHANGES, _MOVED = "changes", "moved"


def _as_listed(shard: Shard) -> Shard:
    return shard


@dataclass(frozen=True)
class ShardJob:
    """What a command makes of the shards of a source. Small to pickle: workers get it.

    Attributes:
        command: its name, for errors.
        source: where rows are read.
        parts: where they are written.
        make_batches: reads the rows of one part with ``PartUnits.read`` and yields what is to be
            written, in the same order, a batch at a time.
        with_stamps: adds to a shard's stamps what else makes its rows different.
    """

    command: str
    source: Source
    parts: PartFiles
    make_batches: Callable[[PartUnits], Iterator[pa.RecordBatch]]
    with_stamps: Callable[[Shard], Shard] = _as_listed

    def shards_after(self, last: Shard | None = None) -> Iterable[Shard]:
        """List the source's shards that follow one; by default all."""
        return map(self.with_stamps, shards_after(self.source, last))

    @property
    def pieces(self) -> PieceFiles:
        """Where the listing is kept until the directory is finished."""
        is_file = kind_at(self.source.location) == "file"
        state = size_and_stamp(self.source.location)[1] if is_file else ""
        return PieceFiles(self.parts.location, state)


@dataclass(frozen=True)
class OutputRequest:
    """What the directory is, and what it is made from.

    Attributes:
        kind: of the directory, see ``Manifest``.
        config: settings that decide what is written.
        made_from: name of each input -> its fingerprint; ``source`` ends with its address. The
            listing is added by the job.
        free: settings that may change until the directory is finished.
    """

    kind: str
    config: dict[str, Any]
    made_from: dict[str, Any]
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobResult:
    """What a job counted: ``listed`` = ``written`` + ``quarantined`` rows.

    Attributes:
        listed: rows of the source.
        written: rows of all parts.
        quarantine: rows that are in no part.
        numbers: of the parts, ascending.
        update: what changed in the source; None where this was not an update.
    """

    listed: int
    written: int
    quarantine: Quarantine
    numbers: tuple[int, ...]
    update: Changes | None

    @property
    def quarantined(self) -> int:
        """How many rows are in no part."""
        return self.quarantine.rows


Finish = Callable[[Path, JobResult], dict[str, Any]]


def run_shard_job(
    job: ShardJob,
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
        out: the directory, or its URI: that of ``job.parts``.
        request: what the directory is.
        config: rows per part, and how many rows may be bad.
        map_shards: applies a function to all shards, on whatever machines.
        finish: called when all parts are written: (local directory, result) -> manifest counts.
        update: bring a finished directory up to date with the source.
        retry_failed: read quarantined rows again.

    A source that lies elsewhere than before is known by its files, see ``moved``. Then all rows
    that are not finished, or are updated, are read again, as they have other addresses now; what
    was computed from the same bytes is used again.

    Raises:
        AlreadyDone: ``out`` was finished by the same request, and nothing changed.
        TooManyBadRows: more rows are bad than ``config`` allows.
        SchnRayError: the source changed, or ``out`` has another content.
    """
    again = update or retry_failed
    with open_output(out) as mirror:
        is_compared = is_finished(mirror.local) and not again
        shards = _ComparedShards(job)
        listing = listing_sha256(shards) if is_compared else None
        made_from = request.made_from | {LISTING: listing}
        settings = request.config, made_from, LISTING, not is_compared, request.free
        same = functools.partial(_same_inputs, job, config, made_from[SOURCE], update)
        with (
            _noting_changes(shards),
            resumable_directory(mirror.local, request.kind, *settings, same) as writer,
        ):
            if is_finished(writer.path) and not again:  # by another process, meanwhile
                raise AlreadyDone(writer.path, request.kind)
            _refuse_changed_output(writer.path, request, job.parts)
            begun = _read_begun(writer.path, made_from[SOURCE])
            output = _Output(job, mirror, writer, begun, config, map_shards)
            is_update = again or begun.changes is not None
            if is_update or begun.is_moved:
                rows, changes = output.update(update, retry_failed)
            else:
                rows, changes = output.create(), None
            changes = changes if is_update else None
            result = output.summarise(rows, changes)
            refuse_too_many(result.quarantine, result.listed, config.max_bad_share)
            writer.counts |= finish(writer.path, result)
            if result.quarantine.heic:
                writer.counts[HEIC_SKIPPED] = result.quarantine.heic
            job.pieces.remove()
    return read_manifest(mirror.local, request.kind)


class _ComparedShards:
    """Shards of a source while they are listed to be compared with a finished directory.

    The listing has the sizes of files. A file of many rows may change and keep its size, such as
    one of vectors; its stamp is in the receipt, which is short.

    Args:
        job: that wrote the directory.

    Attributes:
        changed: whether such a file, or a store, is another now.
    """

    def __init__(self, job: ShardJob) -> None:
        self._job, self.changed = job, False

    def __iter__(self) -> Iterator[Shard]:
        """Yield the shards."""
        numbers = frozenset(self._job.parts.numbers())
        for shard in self._job.shards_after():
            if len(shard.files) < 2 and shard.number in numbers and not self.changed:
                (listed,), receipt = units_of(shard), self._job.parts.read_receipt(shard.number)
                same_name = [
                    u for u in receipt.units if without_stamp(u.unit) == without_stamp(listed)
                ]
                self.changed = any(done.unit != listed for done in same_name)
            yield shard


@contextmanager
def _noting_changes(shards: _ComparedShards) -> Iterator[None]:
    try:
        yield
    except AlreadyDone as done:
        if not shards.changed:
            raise
        note = "; its source has changed since, --update takes that in"
        raise AlreadyDone(done.path, done.kind, done.location, note) from done


@dataclass(frozen=True)
class _Begun:
    """What a directory says of the run that began or finished it.

    Attributes:
        listing: SHA-256 of the listing; None if that was not complete, or its source was moved.
        changes: what an update found; None if it was not an update.
        is_moved: whether rows may have the addresses of a source that lay elsewhere.
    """

    listing: str | None = None
    changes: Changes | None = None
    is_moved: bool = False


def _read_begun(path: Path, source: str) -> _Begun:
    if not (path / REQUEST).is_file():
        recorded = _recorded_source(path)
        return _Begun(is_moved=recorded not in (None, source))
    values = parse_json((path / REQUEST).read_bytes(), str(path / REQUEST))
    changes, made_from = values.get(_CHANGES), values["made_from"]
    is_moved = values.get(_MOVED, False) or made_from[SOURCE] != source
    listing = None if is_moved else made_from.get(LISTING)
    return _Begun(listing, Changes(**changes) if changes else None, is_moved)


def _recorded_source(path: Path) -> str | None:
    """Return what a finished directory has of its source, if it is one."""
    if not is_finished(path):
        return None
    values = parse_json((path / MANIFEST).read_bytes(), str(path / MANIFEST))
    source: str = values["made_from"][SOURCE]
    return source


def _same_inputs(
    job: ShardJob, config: SourceConfig, source: str, update: bool, recorded: dict[str, Any]
) -> Collection[str]:
    """Return the inputs that are what they were: a source that was moved, and what it lists."""
    before = recorded.get(SOURCE)
    location = job.source.location
    if not isinstance(before, str) or former_location(before, source, location) is None:
        return ()
    parts = job.parts.numbers(), job.parts.read_receipt
    changes = changes_since_move(job.shards_after(), *parts, config.shard_rows, update)
    if changes is None:
        return ()
    # a listing may name files of lists by their whole paths
    return (SOURCE,) if changes.new else (SOURCE, LISTING)


@dataclass(frozen=True)
class _Output:
    """A directory while its parts are written."""

    job: ShardJob
    mirror: Mirror
    writer: DirectoryWriter
    begun: _Begun
    config: SourceConfig
    map_shards: MapShards

    def create(self) -> int:
        """Write the parts that a new directory still lacks; return how many rows are listed."""
        job, parts = self.job, self.job.parts
        numbers = parts.numbers()
        parts_end = max(numbers, default=-1) + 1
        listing = StreamedListing(job.shards_after, job.pieces, parts_end, self._begin)
        with listing:
            self._begin(listing.sha256 if listing.is_quick() else None)
            parts.remove_leftovers()
            listing.write_pieces()
            listed_before = self.begun.listing is not None
            shards = UnwrittenShards(listing, numbers, parts.read_receipt, listed_before)
            try:
                write_parts(job, shards, self.map_shards)
                listing.wait()
            except SourceChanged as error:
                raise self._held_other_files() from error
            if shards.changed:
                self._write_pending(self._pending(listing))
        return listing.rows

    def update(self, update: bool, retry_failed: bool) -> tuple[int, Changes]:
        """Bring parts up to date; return how many rows are listed, and what changed."""
        listed = Listed(self.job.shards_after())
        pending = self._pending(listed, retry_failed, self.begun.is_moved)
        if is_finished(self.writer.path) and not pending.tasks and not pending.emptied:
            # of a run that was killed between the manifest and its end
            (self.writer.path / REQUEST).unlink(missing_ok=True)
            self.mirror.send()
            raise AlreadyDone(self.writer.path, self.writer.request["kind"])
        if retry_failed and not update:
            _refuse_changed_source(pending.changes)
        if not (update or retry_failed):
            self._refuse_other_listing(listed.sha256)
        # what is left of an update that was killed is not all that it changed
        changes = self.begun.changes or Changes()
        if self.begun.changes is None or self.begun.listing != listed.sha256:
            changes += pending.changes
        self.writer.notes |= {_CHANGES: asdict(changes), _MOVED: self.begun.is_moved}
        self._begin(listed.sha256)
        self.job.pieces.remove()
        self.job.parts.remove_leftovers()
        self._write_pending(pending)
        return listed.rows, changes

    def _begin(self, listing: str | None) -> None:
        """Mark the directory as unfinished, made from a listing that may not be complete yet."""
        if not self.writer.notes:
            self._refuse_other_listing(listing)
        self.writer.request["made_from"][LISTING] = listing or self.begun.listing
        self.writer.begin()
        self.mirror.send()

    def _refuse_other_listing(self, listing: str | None) -> None:
        if None not in (listing, self.begun.listing) and listing != self.begun.listing:
            raise self._held_other_files()

    def _held_other_files(self) -> SchnRayError:
        return SourceHasChanged(
            f"{self.mirror.location} was made when the source held other files: take in what is "
            "new, changed or gone with --update"
        )

    def _pending(
        self, shards: Iterable[Shard], retry_failed: bool = False, read_again: bool = False
    ) -> PendingWork:
        parts = self.job.parts
        receipts = parts.numbers(), parts.read_receipt
        return find_pending(shards, *receipts, self.config.shard_rows, retry_failed, read_again)

    def _write_pending(self, pending: PendingWork) -> None:
        write_parts(self.job, pending.tasks, self.map_shards)
        # not before: new parts have higher numbers than these, also in a run after a kill
        self.job.parts.remove(pending.emptied)

    def summarise(self, listed: int, changes: Changes | None) -> JobResult:
        """Quarantine rows that repeat an id, count all rows, and write the quarantined ones."""
        parts = self.job.parts
        numbers = parts.numbers()
        parts.remove_leftovers()  # of workers that were killed meanwhile
        _quarantine_repeated_ids(parts, numbers)
        written = 0

        def bad_rows() -> Iterator[BadRow]:
            nonlocal written
            for receipt in parts.totals(numbers, self.writer.known):
                written += receipt.written
                yield from receipt.quarantined

        quarantine = write_quarantine(self.writer.path, bad_rows())
        if written + quarantine.rows != listed:
            raise SchnRayError(
                f"{listed:,} rows were listed, but {written:,} are written and "
                f"{quarantine.rows:,} quarantined: run the same command again, it goes on with "
                "what is missing"
            )
        return JobResult(listed, written, quarantine, tuple(numbers), changes)


def write_parts(job: ShardJob, shards: Iterable[Shard], map_shards: MapShards) -> None:
    """Write a part per shard; older parts of these numbers are replaced.

    Args:
        job: what to do with a shard.
        shards: their numbers become those of the parts; may be listed meanwhile.
        map_shards: applies a function to all shards, on whatever machines.
    """
    for _ in map_shards(functools.partial(write_part, job=job), shards):
        pass  # the receipts say what was written, also after a kill


class WrittenPart(NamedTuple):
    """What a worker says of a part that it wrote; the receipt says all.

    Attributes:
        number: of the part.
        quarantined: rows that are not in it.
    """

    number: int
    quarantined: int


def write_part(shard: Shard, job: ShardJob) -> WrittenPart:
    """Write the part of one shard, on the machine that ``map_shards`` chooses.

    Args:
        shard: what to read; a ``ShardTask`` may have units that stay as they are.
        job: what to do with it.

    Raises:
        SchnRayError: the shard has other rows than were listed, or the part cannot be written.
    """
    units = PartUnits(shard, job.source, job.parts, job.command)
    receipt = job.parts.write(shard.number, _all_batches(units, job), units.receipts)
    return WrittenPart(shard.number, len(receipt.quarantined))


def _all_batches(units: PartUnits, job: ShardJob) -> Iterator[pa.RecordBatch]:
    yield from units.unchanged()
    if units.shard.rows:
        yield from job.make_batches(units)


def _refuse_changed_output(path: Path, request: OutputRequest, parts: PartFiles) -> None:
    """Refuse a finished directory of another format, or with files that were changed since."""
    if not is_finished(path):
        return
    manifest = read_manifest(path, request.kind)
    for name, sha256 in manifest.files.items():
        location = join(parts.location, name)
        if kind_at(location) and sha256_and_size(location)[0] != sha256:
            raise SchnRayError(
                f"{location} differs from its manifest; remove this file and run the same command "
                "with --update: it is made again"
            )


def _refuse_changed_source(changes: Changes) -> None:
    if changes.new or changes.changed or changes.gone:
        raise SchnRayError(
            f"the source changed: {changes.new:,} rows are new, {changes.changed:,} changed, "
            f"{changes.gone:,} are gone. Add --update to take that in, too"
        )


def _quarantine_repeated_ids(parts: PartFiles, numbers: list[int]) -> None:
    """Take out rows whose id an earlier row has."""
    for number, rows in repeated_ids(numbers, parts.read_strings):
        table, units = parts.read(number), parts.read_receipt(number).units
        remaining = take_rows(table, rows_without(len(table), rows))
        parts.write(number, remaining, quarantine_rows(units, rows))
