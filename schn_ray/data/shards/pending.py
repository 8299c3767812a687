"""What is left to do: what a source lists now against what the parts answer for.

A first run, a run after a kill, an update and another try of what failed are all the same
question, asked of the parts that are there; so any of them may be killed and asked again.

Parts keep their units: where files appear or vanish, the slices of a sorted listing shift, but a
part is looked up by the names of its files, not by its number. A unit whose name and stamp are
still listed stays as it is; one with another stamp is read again, and coded where its bytes have
another SHA-256; one that is gone leaves its part. New units make new parts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from schn_ray.data.shards.receipts import Receipt, UnitReceipt
from schn_ray.data.shards.rows import Shard, Unit, cut, shard_of, units_of

NEW, CHANGED, GONE, FAILED, SAME = "new", "changed", "gone", "failed", "same"


@dataclass(frozen=True)
class ShardTask(Shard):
    """A part to write, of units to read and of ``kept`` units that the part has already."""

    kept: tuple[Unit, ...] = ()


@dataclass(frozen=True)
class PendingWork:
    """What is to be done, and why.

    Attributes:
        tasks: parts to write or to write again.
        emptied: numbers of parts of which nothing is left.
        new: rows that no part answers for.
        changed: rows of units whose stamp changed.
        gone: rows that are not listed any more.
        failed: quarantined rows that are tried again.
    """

    tasks: tuple[ShardTask, ...]
    emptied: tuple[int, ...] = ()
    new: int = 0
    changed: int = 0
    gone: int = 0
    failed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """What an update took in, for the manifest."""
        return {"new": self.new, "changed": self.changed, "gone": self.gone}


def find_pending(
    shards: Sequence[Shard], receipts: dict[int, Receipt], shard_rows: int, retry: bool = False
) -> PendingWork:
    """Compare.

    Args:
        shards: what the source lists now.
        receipts: of the parts that are there.
        shard_rows: rows of a new part, at most.
        retry: whether units with quarantined rows are read again.
    """
    open_shards, left = _without_settled(shards, receipts, retry)
    units = _named(unit for shard in open_shards for unit in units_of(shard))
    found = _matched(left.values(), units)
    # what was put aside for its id may be alone with that id now
    retry_ids = any(unit != done.unit for pairs in found.values() for done, unit in pairs)
    tasks, emptied, counts = [], [], Counter[str]()
    for number, pairs in found.items():
        kept, read = list[Unit](), list[Unit]()
        for done, unit in pairs:
            why = _why(done, unit, retry, retry_ids)
            counts[why] += len(done.quarantined) if why == FAILED else done.unit.rows
            if unit is not None:
                (kept if why == SAME else read).append(unit)
        if not kept and not read:
            emptied.append(number)
        elif len(kept) < len(pairs):
            tasks.append(_task(number, read, kept))
    counts[NEW] = sum(unit.rows for unit in units.values())
    tasks += _new_parts(open_shards, units, set(receipts), shard_rows)
    del counts[SAME]
    return PendingWork(tuple(tasks), tuple(emptied), **counts)


def _without_settled(
    shards: Sequence[Shard], receipts: dict[int, Receipt], retry: bool
) -> tuple[list[Shard], dict[int, Receipt]]:
    """Leave out shards whose part, of the same number, has the same units: most, as a rule."""
    left, open_shards = dict(receipts), []
    for shard in shards:
        receipt = receipts.get(shard.number)
        if receipt and not _may_pass_now(receipt, retry) and _units(receipt) == units_of(shard):
            del left[shard.number]
        else:
            open_shards.append(shard)
    return open_shards, left


def _units(receipt: Receipt) -> list[Unit]:
    return [done.unit for done in receipt.done]


def _may_pass_now(receipt: Receipt, retry: bool) -> bool:
    return any(retry or row.stage == "id" for row in receipt.quarantined)


_Name = tuple[str, int, int]


def _names(units: Iterable[Unit], seen: Counter[tuple[str, int]]) -> Iterator[_Name]:
    """Name by file, first row and how often the two came before: a list may repeat a file."""
    for unit in units:
        yield unit.file, unit.start, seen[unit.file, unit.start]
        seen[unit.file, unit.start] += 1


def _named(units: Iterable[Unit]) -> dict[_Name, Unit]:
    units = list(units)
    return dict(zip(_names(units, Counter()), units, strict=True))


def _matched(
    receipts: Iterable[Receipt], units: dict[_Name, Unit]
) -> dict[int, list[tuple[UnitReceipt, Unit | None]]]:
    """Take from ``units`` what a part answers for: part -> what it has, and what is listed now."""
    seen = Counter[tuple[str, int]]()
    return {
        receipt.number: [
            (done, units.pop(name, None))
            for name, done in zip(_names(_units(receipt), seen), receipt.done, strict=True)
        ]
        for receipt in receipts
    }


def _why(done: UnitReceipt, unit: Unit | None, retry: bool, retry_ids: bool) -> str:
    if unit is None:
        return GONE
    if any(retry or (retry_ids and row.stage == "id") for row in done.quarantined):
        return FAILED
    return SAME if unit == done.unit else CHANGED


def _new_parts(
    shards: Sequence[Shard], units: dict[_Name, Unit], taken: set[int], shard_rows: int
) -> Iterator[ShardTask]:
    """Cut what no part answers for: whole shards as they are listed, the rest put together."""
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


def _task(number: int, read: list[Unit], kept: list[Unit]) -> ShardTask:
    shard = shard_of(number, read) if read else Shard(number, 0)
    return ShardTask(**vars(shard) | {"kept": tuple(kept)})


def _is_image(unit: Unit) -> bool:
    is_file = unit.file != "" or unit.entry is not None
    return is_file and (unit.start, unit.rows) == (0, 1)
