"""What all sources have in common: a row, a row that cannot be used, a shard, a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol, cast

from numpy.typing import NDArray

_FEW_ROWS = 256  # none is smaller than this, unless all are
_SMALLER, _OF_A_SIZE = 8, 8  # the first 8 shards are 8 times smaller, the next 4 times ...


@dataclass(frozen=True)
class Row:
    """One row of a source: an image that is not decoded yet, a vector, or both.

    Attributes:
        id: of the row. It should be unique; the job that writes the rows checks that.
        image: encoded bytes; None for a vector alone.
        labels: class names, without repetition; empty for an unlabelled image.
        uri: where the bytes come from; ``fetch`` reads them again.
        split: its role in the data set's own split: ``train``, ``test`` (a query), ``database``
            (the gallery) or ``junk`` (never ranked); roles are separated by spaces.
        camera: number of the camera that took it, from 0; -1 if unknown.
        vector: [D] numbers, in the format that the source says (``shards/vectors``); None for an
            image alone.
    """

    id: str
    image: bytes | None
    labels: tuple[str, ...]
    uri: str
    split: str | None = None
    camera: int = -1
    vector: NDArray[Any] | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        id: of the image.
        uri: where its bytes come from.
        stage: at which it failed: ``read``, ``decode`` or ``id`` (an earlier row has its id).
        reason: what is wrong, for the user.
    """

    id: str
    uri: str
    stage: str
    reason: str


class Entry(NamedTuple):
    """What a list has about one image besides its path.

    Attributes:
        id: of the image.
        labels: class names.
        line: of the list, from 1.
        problem: what is wrong with this line; empty if nothing is.
        split: see ``Row``.
        camera: see ``Row``.
        list: the list's file, if the source has more than one.
    """

    id: str
    labels: tuple[str, ...]
    line: int
    problem: str = ""
    split: str | None = None
    camera: int = -1
    list: str = ""


@dataclass(frozen=True)
class Shard:
    """The unit of work: some rows of a source, small to send.

    Attributes:
        number: of this shard within the source, from 0; rows keep this order.
        rows: how many rows it has, bad ones included.
        start: first row of the shard within its file.
        files: the files it reads, relative to the source's location: one file, or one per row.
        bytes: size of those files on disk.
        stamps: of each file, or of the source if it has no files: a text that differs when the
            content may have changed, such as size and time of the last change.
        entries: what a list has about each file; empty if there is no list.
    """

    number: int
    rows: int
    start: int = 0
    files: tuple[str, ...] = ()
    bytes: int = 0
    stamps: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read again as a whole when it changed: a file of one image, or rows of a larger file.

    Attributes:
        file: relative to the source's location; empty for a source without files.
        start: first row within the file.
        rows: how many rows.
        stamp: see ``Shard``.
        entry: what a list has about it.
    """

    file: str
    start: int
    rows: int
    stamp: str
    entry: Entry | None = field(default=None, compare=False)


class Source(Protocol):
    """Images or vectors in one layout. Small to pickle: what it lists is in its shards.

    A source of vectors has one attribute more, see ``shards/vectors``. One that takes long to list
    should have ``shards_after(last)``, the shards that follow one of ``shards()``, without listing
    those before it.

    Attributes:
        kind: name of the layout, as in ``SourceConfig.kind``.
        location: absolute path, or ``digits``.
    """

    @property
    def kind(self) -> str:
        """Name of the layout."""
        ...

    @property
    def location(self) -> str:
        """Absolute path, or ``digits``."""
        ...

    def shards(self) -> Iterable[Shard]:
        """List all rows, in a fixed order; best one shard after the other, as they are asked for.

        Raises:
            SchnRayError: nothing is at the location, or nothing in this layout.
        """
        ...

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows in order; a row that cannot be read is a ``BadRow``.

        Args:
            shard: one of ``shards``, or made of their units.
        """
        ...


def shards_after(source: Source, last: Shard | None) -> Iterable[Shard]:
    """List the shards of a source that follow one of them.

    Args:
        source: of any kind.
        last: a shard of an earlier call; None: all are listed.
    """
    if last is None:
        return source.shards()
    if (resumed := getattr(source, "shards_after", None)) is not None:
        return cast(Iterable[Shard], resumed(last))
    return islice(source.shards(), last.number + 1, None)


class Listed:
    """The shards of a source while they are read once, with what is known at their end.

    Args:
        shards: of the source.

    Attributes:
        rows: of the shards that were read.
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._shards, self._digest, self.rows = shards, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[Shard]:
        """Yield the shards."""
        for shard in self._shards:
            self._digest.update(listed_bytes(shard))
            self.rows += shard.rows
            yield shard

    @property
    def sha256(self) -> str:
        """The SHA-256 of the listing, as far as it was read, see ``listing_sha256``."""
        return self._digest.hexdigest()


def listing_sha256(shards: Iterable[Shard]) -> str:
    """Return the SHA-256 of what a source lists: names, row counts and sizes of files.

    Args:
        shards: of the source; their stamps do not count.
    """
    listed = Listed(shards)
    for _ in listed:
        pass
    return listed.sha256


def listed_bytes(shard: Shard) -> bytes:
    """Return what a shard adds to the SHA-256 of its listing.

    Args:
        shard: of the source.
    """
    # not asdict, which copies each name
    return json.dumps(vars(shard) | {"stamps": ()}).encode()


def units_of(shard: Shard) -> list[Unit]:
    """Split a shard into units: one per file, or one in all if it has no file or a single one.

    Args:
        shard: of any source.
    """
    if len(shard.files) < 2:
        file, at, entry = [*shard.files, ""][0], [*shard.stamps, ""][0], [*shard.entries, None][0]
        return [Unit(file, shard.start, shard.rows, at, entry)]
    entries = shard.entries or (None,) * shard.rows
    stamps = shard.stamps or ("",) * shard.rows
    of_files = zip(shard.files, stamps, entries, strict=True)
    return [Unit(file, 0, 1, at, entry) for file, at, entry in of_files]


def shard_of(number: int, units: Sequence[Unit]) -> Shard:
    """Make a shard of units.

    Args:
        number: of the shard.
        units: any number of one row each, or a single larger one.

    Example:
        >>> two = Shard(3, 2, files=("a.png", "b.png"), stamps=("1-1", "2-2"))
        >>> shard_of(3, units_of(two)) == two
        True
    """
    return Shard(
        number,
        sum(unit.rows for unit in units),
        units[0].start,
        () if units[0].file == "" and units[0].entry is None else tuple(u.file for u in units),
        stamps=tuple(unit.stamp for unit in units) if any(unit.stamp for unit in units) else (),
        entries=tuple(unit.entry for unit in units if unit.entry),
    )


def shard_size(number: int, shard_rows: int) -> int:
    """Return how many rows a shard has: the first ones are small, for workers to share few rows.

    It follows from the number alone, so that a source is listed without being counted first, and
    the shards of a job that goes on are those that it began with, whatever its workers.

    Args:
        number: of the shard within its source.
        shard_rows: the most rows of a shard.

    Example:
        >>> [shard_size(number, 2048) for number in (0, 7, 8, 16, 24, 1000)]
        [256, 256, 512, 1024, 2048, 2048]
    """
    smallest = max(shard_rows // _SMALLER, _FEW_ROWS)
    return int(min(shard_rows, smallest << min(number // _OF_A_SIZE, _SMALLER.bit_length())))


def shard_start(number: int, shard_rows: int) -> int:
    """Return how many rows come before a shard, see ``shard_size``.

    Args:
        number: of the shard.
        shard_rows: the most rows of a shard.

    Example:
        >>> shard_start(9, 2048)
        2560
    """
    smaller = min(number, _OF_A_SIZE * _SMALLER.bit_length())
    before = sum(shard_size(n, shard_rows) for n in range(smaller))
    return before + (number - smaller) * shard_rows


def cut(rows: int, shard_rows: int, start: int = 0, number: int = 0) -> list[tuple[int, int]]:
    """Cut rows into runs of (start, count), of the sizes of ``shard_size``.

    Args:
        rows: how many rows there are.
        shard_rows: rows of a run, at most.
        start: first row of the first run.
        number: of the first run's shard, within the source.

    Example:
        >>> cut(5, 2)
        [(0, 2), (2, 2), (4, 1)]
    """
    runs = list[tuple[int, int]]()
    while start < rows:
        runs.append((start, min(shard_size(number + len(runs), shard_rows), rows - start)))
        start += runs[-1][1]
    return runs
