"""A source that lies elsewhere than when its rows were written: known by its files, not its path.

A disk is mounted at another place, or a directory with all that was made in it is moved. Files have
their names, sizes and times still, and a store its fingerprint: the stamps in the receipts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from schn_ray.data.shards.pending import Changes, ReadReceipt, find_pending
from schn_ray.data.shards.rows import Shard


def former_location(recorded: str, recorded_now: str, location: str) -> str | None:
    """Return where a source lay when it was recorded.

    Args:
        recorded: what a manifest has of it: its location, perhaps after its kind.
        recorded_now: what it would have now.
        location: of the source now.

    Returns:
        None if it lies there still, or that was one of another kind.

    Example:
        >>> former_location("parquet:/a/x.parquet", "parquet:/b/x.parquet", "/b/x.parquet")
        '/a/x.parquet'
    """
    kind = recorded_now.removesuffix(location)
    if recorded == recorded_now or not recorded.startswith(kind):
        return None
    return recorded.removeprefix(kind)


def changes_since_move(
    shards: Iterable[Shard],
    numbers: Collection[int],
    read_receipt: ReadReceipt,
    shard_rows: int,
    update: bool,
) -> Changes | None:
    """Compare the files that a source lists with those that parts were written from, elsewhere.

    Args:
        shards: of the source.
        numbers: of the parts.
        read_receipt: reads the receipt of one of them.
        shard_rows: see ``find_pending``.
        update: whether one file that is as it was shows that it is the same source; else none may
            be changed or gone.

    Returns:
        What differs; None if it is another source.
    """
    stamps = _Stamps(shards)
    pending = find_pending(stamps, numbers, read_receipt, shard_rows)
    changes = pending.changes
    same = pending.any_same if update else not (changes.changed or changes.gone)
    return changes if same and stamps.all_known else None


class _Stamps:
    """Shards while they are read once; ``all_known``: whether each file has a stamp.

    Args:
        shards: of a source.
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._shards, self.all_known = shards, True

    def __iter__(self) -> Iterator[Shard]:
        for shard in self._shards:
            # that of a list's labels follows a space
            known = bool(shard.stamps) and all(s.split(" ")[0] for s in shard.stamps)
            self.all_known = self.all_known and known
            yield shard
