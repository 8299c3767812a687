"""The words that all sources share: a row, a row that cannot be used, a shard, a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Protocol


@dataclass(frozen=True)
class Row:
    """One image of a source, not decoded yet.

    Attributes:
        id: names the image; should be unique, which whoever writes the rows checks.
        image: encoded bytes.
        labels: class names, without repetition; empty for an unlabelled image.
        uri: where the bytes are; ``fetch`` reads them again.
        split: ``train`` or ``test`` where the data set says so itself.
    """

    id: str
    image: bytes
    labels: tuple[str, ...]
    uri: str
    split: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: ``stage`` (``read``, ``decode``, ``id``) and reason say why."""

    id: str
    uri: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Shard:
    """The unit of work: some rows of a source, small to send.

    Attributes:
        number: place of this shard among the source's, from 0; rows keep that order.
        rows: how many rows it has, bad ones included.
        start: first row of the shard within its file.
        files: the files it reads, relative to the source's location.
        bytes: size of those files on disk.
    """

    number: int
    rows: int
    start: int = 0
    files: tuple[str, ...] = ()
    bytes: int = 0


class Source(Protocol):
    """Labelled images in some layout. Small to pickle: what it lists lies in its shards.

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

    def shards(self) -> list[Shard]:
        """List all rows, in a fixed order.

        Raises:
            SchnRayError: nothing there, or not in this layout.
        """
        ...

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows in order; what cannot be read is a ``BadRow``."""
        ...


def listing_sha256(shards: list[Shard]) -> str:
    """Fingerprint what a source lists: names, row counts and sizes of files, not their content."""
    content = json.dumps([asdict(shard) for shard in shards])
    return hashlib.sha256(content.encode()).hexdigest()


def cut(rows: int, shard_rows: int) -> list[tuple[int, int]]:
    """Cut rows into runs of (start, count).

    >>> cut(5, 2)
    [(0, 2), (2, 2), (4, 1)]
    """
    return [(start, min(shard_rows, rows - start)) for start in range(0, rows, shard_rows)]
