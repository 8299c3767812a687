"""What is left to do: what a source lists now, compared with the receipts of the parts.

A first run, a run after a kill, an update and another try of failed rows ask the same question, of
the parts that exist. So each of them may be killed and run again.

A first run, and one after it was killed, ask shard by shard (``UnwrittenShards``): parts have the
numbers of their shards, and nothing of a shard stays in memory. Any other asks once for all that is
listed (``find_pending``), and holds what is not settled at once.

In the latter, a part is matched by the names of its files, not by its number: where files appear or
vanish, the slices of a sorted listing shift. A unit whose name and stamp are still listed stays as
it is. A unit with another stamp is read again. A unit that is gone leaves its part. New units make
new parts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

from schn_ray.data.images import NO_HEIC, can_read_heic
from schn_ray.data.shards.receipts import Receipt, UnitReceipt
from schn_ray.data.shards.rows import BadRow, Shard, Unit, cut, shard_of, units_of
from schn_ray.data.shards.streamed_listing import StreamedListing

NEW, CHANGED, GONE, FAILED, SAME = "new", "changed", "gone", "failed", "same"


@dataclass(frozen=True)
class ShardTask(Shard):
    """A part to write: of units to read, and of units that the part has already.

    Attributes:
        unchanged: units whose rows are taken from the existing part.
    """

    unchanged: tuple[Unit, ...] = ()


@dataclass(frozen=True)
class Changes:
    """How many rows of a source differ from those that are written.

    Attributes:
        new: rows of units that are in no part.
        changed: rows of units whose stamp changed.
        gone: rows of units that are not listed any more.
        failed: quarantined rows that are tried again.
    """

    new: int = 0
    changed: int = 0
    gone: int = 0
    failed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """What the manifest of an update records."""
        return {"new": self.new, "changed": self.changed, "gone": self.gone}

    def __add__(self, later: Changes) -> Changes:
        pairs = zip(astuple(self), astuple(later), strict=True)
        return Changes(*(before + after for before, after in pairs))


@dataclass(frozen=True)
class PendingWork:
    """What is left to do, and why.

    Attributes:
        tasks: parts to write or to write again.
        emptied: numbers of parts that have no unit any more.
        changes: what differs.
        any_same: whether any unit is listed as it was when it was read.
    """

    tasks: tuple[ShardTask, ...]
    emptied: tuple[int, ...]
    changes: Changes
    any_same: bool


ReadReceipt = Callable[[int], Receipt]
"""Reads the receipt of the part of a number."""


class SourceChanged(Exception):
    """A part has other units than the shard of its number: the source lists other files now."""


class UnwrittenShards:
    """The shards of a streamed listing that have no part yet; a ``ListedMeanwhile``.

    Args:
        listing: in whose order parts were begun, and are numbered.
        numbers: of the parts that exist.
        read_receipt: reads the receipt of one of them.
        listed_before: whether an earlier run came to the listing's end: then it is compared before
            anything that may be new is yielded.

    Attributes:
        done_before: rows of shards that have their part.
        changed: whether units of them have another stamp than when they were read.
    """

    def __init__(
        self,
        listing: StreamedListing,
        numbers: Collection[int],
        read_receipt: ReadReceipt,
        listed_before: bool,
    ) -> None:
        self._listing, self._numbers = listing, frozenset(numbers)
        self._read_receipt, self._listed_before = read_receipt, listed_before
        self.done_before, self.changed = 0, False

    @property
    def rows(self) -> int:
        """How many rows are listed so far."""
        return self._listing.rows

    @property
    def all_listed(self) -> bool:
        """Whether the source is listed to its end."""
        return self._listing.sha256 is not None

    def __iter__(self) -> Iterator[ShardTask]:
        """Yield the shards that have no part.

        Raises:
            SourceChanged: see there.
        """
        number = -1
        for shard in self._listing:
            number, is_known = shard.number, self._listing.has_units_of_part(shard)
            if self._listed_before and not is_known:
                self._listing.wait()
            if number not in self._numbers:
                yield ShardTask(**vars(shard))
                continue
            self.done_before += shard.rows
            if not is_known:
                self._compare(shard)
        if max(self._numbers, default=-1) > number:
            raise SourceChanged

    def _compare(self, shard: Shard) -> None:
        written, listed = _units(self._read_receipt(shard.number)), units_of(shard)
        if written == listed:
            return
        if [without_stamp(unit) for unit in written] != [without_stamp(unit) for unit in listed]:
            raise SourceChanged
        self.changed = True


def without_stamp(unit: Unit) -> tuple[str, int, int]:
    """Return which file, or rows of a file, a unit is, whether it changed or not.

    Args:
        unit: of a source.
    """
    return unit.file, unit.start, unit.rows


def find_pending(
    shards: Iterable[Shard],
    numbers: Collection[int],
    read_receipt: ReadReceipt,
    shard_rows: int,
    retry: bool = False,
    read_again: bool = False,
) -> PendingWork:
    """Compare what a source lists with the receipts.

    Args:
        shards: what the source lists now. One whose part has the same units is dropped at once.
        numbers: of the parts that exist.
        read_receipt: reads the receipt of one of them.
        shard_rows: rows of a new part, at most.
        retry: whether units with quarantined rows are read again.
        read_again: whether all units are.

    Example:
        >>> files = [Shard(0, 2, files=("a.png", "b.png"), stamps=("1-1", "2-2"))]
        >>> find_pending(files, (), lambda number: None, shard_rows=100).changes.new
        2
    """
    taken = set(numbers)
    open_shards, open_numbers = _without_settled(
        shards, taken, read_receipt, lambda r: read_again or _may_pass_now(r, retry)
    )
    units = _by_name(unit for shard in open_shards for unit in units_of(shard))
    matches = _match(map(read_receipt, open_numbers), units)
    # a row that was quarantined for its id may be the only one with that id now
    retry_ids = any(unit != done.unit for pairs in matches.values() for done, unit in pairs)
    tasks, emptied, counts = [], [], Counter[str]()
    for number, pairs in matches.items():
        unchanged, read = list[Unit](), list[Unit]()
        for done, unit in pairs:
            state = _state_of(done, unit, retry, retry_ids)
            state = CHANGED if read_again and state == SAME else state
            counts[state] += len(done.quarantined) if state == FAILED else done.unit.rows
            if unit is not None:
                (unchanged if state == SAME else read).append(unit)
        if not unchanged and not read:
            emptied.append(number)
        elif len(unchanged) < len(pairs):
            tasks.append(_task(number, read, unchanged))
    counts[NEW] = sum(unit.rows for unit in units.values())
    tasks += _new_parts(open_shards, units, taken, shard_rows)
    any_same = len(open_numbers) < len(taken) or counts[SAME] > 0
    del counts[SAME]
    return PendingWork(tuple(tasks), tuple(emptied), Changes(**counts), any_same)


def _without_settled(
    shards: Iterable[Shard],
    taken: set[int],
    read_receipt: ReadReceipt,
    is_open: Callable[[Receipt], bool],
) -> tuple[list[Shard], list[int]]:
    """Leave out shards whose part, of the same number, has the same units: most, as a rule."""
    open_numbers, open_shards = set(taken), []
    for shard in shards:
        receipt = read_receipt(shard.number) if shard.number in taken else None
        if receipt and not is_open(receipt) and _units(receipt) == units_of(shard):
            open_numbers.remove(shard.number)
        else:
            open_shards.append(shard)
    return open_shards, sorted(open_numbers)


def _units(receipt: Receipt) -> list[Unit]:
    return [done.unit for done in receipt.units]


def _may_pass_now(receipt: Receipt, retry: bool) -> bool:
    return any(retry or row.stage == "id" or _is_readable(row) for row in receipt.quarantined)


def _is_readable(row: BadRow) -> bool:
    """Tell whether the library that a row lacked is installed since."""
    return row.reason == NO_HEIC and can_read_heic()


_Name = tuple[str, int, int]


def _names(units: Iterable[Unit], seen: Counter[tuple[str, int]]) -> Iterator[_Name]:
    """Name units by file, first row and repetition: a list may name the same file again."""
    for unit in units:
        yield unit.file, unit.start, seen[unit.file, unit.start]
        seen[unit.file, unit.start] += 1


def _by_name(units: Iterable[Unit]) -> dict[_Name, Unit]:
    units = list(units)
    return dict(zip(_names(units, Counter()), units, strict=True))


def _match(
    receipts: Iterable[Receipt], units: dict[_Name, Unit]
) -> dict[int, list[tuple[UnitReceipt, Unit | None]]]:
    """Return part -> (unit of the part, listed unit of that name), and pop these from ``units``."""
    seen = Counter[tuple[str, int]]()
    return {
        receipt.number: [
            (done, units.pop(name, None))
            for name, done in zip(_names(_units(receipt), seen), receipt.units, strict=True)
        ]
        for receipt in receipts
    }


def _state_of(done: UnitReceipt, unit: Unit | None, retry: bool, retry_ids: bool) -> str:
    if unit is None:
        return GONE
    if any(
        retry or (retry_ids and row.stage == "id") or _is_readable(row) for row in done.quarantined
    ):
        return FAILED
    return SAME if unit == done.unit else CHANGED


def _new_parts(
    shards: Sequence[Shard], units: dict[_Name, Unit], taken: set[int], shard_rows: int
) -> Iterator[ShardTask]:
    """Cut units that are in no part: whole shards as they are listed, the other units together."""
    seen, rest = Counter[tuple[str, int]](), list[Unit]()
    for shard in shards:
        names = list(_names(units_of(shard), seen))
        if shard.number not in taken and all(name in units for name in names):
            yield ShardTask(**vars(shard))
        else:
            rest += [units[name] for name in names if name in units]
    free = itertools.count(max([*taken, *(shard.number for shard in shards), -1]) + 1)
    images = [unit for unit in rest if _is_image(unit)]
    for start, count in cut(len(images), shard_rows):
        yield _task(next(free), images[start : start + count], [])
    for unit in rest:
        if not _is_image(unit):
            yield _task(next(free), [unit], [])


def _task(number: int, read: list[Unit], unchanged: list[Unit]) -> ShardTask:
    shard = shard_of(number, read) if read else Shard(number, 0)
    return ShardTask(**vars(shard) | {"unchanged": tuple(unchanged)})


def _is_image(unit: Unit) -> bool:
    is_file = unit.file != "" or unit.entry is not None
    return is_file and (unit.start, unit.rows) == (0, 1)
