"""A source's listing on disk, in pieces, so that a killed job does not list everything again.

A piece has the shards of one stretch of the listing. It is written whole, with the SHA-256 of its
own content and that of the listing before it: a damaged piece is noticed and listed again, and one
that belongs to another listing does not fit. The pieces go when the directory is finished.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schn_ray.core.atomic_files import cannot_write
from schn_ray.core.storage.files import (
    is_uri,
    join,
    names_in,
    read_file,
    remove_file,
    remove_folder,
    write_file,
)
from schn_ray.data.shards.rows import Entry, Shard, listed_bytes

PIECES = "listing"  # folder in the directory that is written
_SUFFIX = ".piece"


@dataclass(frozen=True)
class ListingPiece:
    """Shards that follow one another in a listing.

    Attributes:
        before: SHA-256 of the listing before this piece, in hexadecimal.
        first: number of its first shard.
        rows: of its shards together.
        fresh: whether it was listed before any of its shards had a part: then parts of these
            numbers have these units, and no receipt need be read to know it.
        lines: two lines of JSON a shard: what counts for the listing's SHA-256, and its stamps.
    """

    before: str
    first: int
    rows: int
    fresh: bool
    lines: tuple[bytes, ...]

    @property
    def listed(self) -> Sequence[bytes]:
        """What each shard adds to the SHA-256 of the listing."""
        return self.lines[::2]

    def shards(self) -> Iterator[Shard]:
        """Yield the shards."""
        for listed, stamps in zip(self.lines[::2], self.lines[1::2], strict=True):
            yield _shard(json.loads(listed), json.loads(stamps))

    def last(self) -> Shard:
        """Return the last shard."""
        return _shard(json.loads(self.lines[-2]), json.loads(self.lines[-1]))


def piece_of(before: str, shards: Sequence[Shard], fresh: bool) -> ListingPiece:
    """Make a piece of shards that follow one another.

    Args:
        before: SHA-256 of the listing before them, in hexadecimal.
        shards: at least one.
        fresh: see ``ListingPiece``.
    """
    lines = tuple(
        line
        for shard in shards
        for line in (listed_bytes(shard), json.dumps(shard.stamps).encode())
    )
    return ListingPiece(before, shards[0].number, sum(shard.rows for shard in shards), fresh, lines)


@dataclass(frozen=True)
class PieceFiles:
    """The pieces in one directory.

    Attributes:
        location: of the directory that the job writes, a path or a URI.
        state: of the source, if that is one file: pieces of another state do not count.
    """

    location: str
    state: str = ""

    def name(self, number: int) -> str:
        """Return the name of a piece, relative to the directory."""
        return f"{PIECES}/{number:06}{_SUFFIX}"

    def write(self, number: int, piece: ListingPiece) -> None:
        """Write a piece; an older one of this number is replaced.

        Raises:
            CannotWrite: the disk is full, say.
        """
        head = [self.state, piece.before, piece.first, piece.rows, piece.fresh]
        data = gzip.compress(b"\n".join([json.dumps(head).encode(), *piece.lines]), 1, mtime=0)
        location = join(self.location, self.name(number))
        try:
            write_file(location, hashlib.sha256(data).hexdigest().encode() + data)
        except OSError as error:
            raise cannot_write(error, location) from error  # not its temporary name

    def read(self, number: int) -> ListingPiece | None:
        """Return a piece; None if it is missing, damaged, or of another state of the source."""
        try:
            data = read_file(join(self.location, self.name(number)))
            if hashlib.sha256(data[64:]).hexdigest().encode() != data[:64]:
                return None
            head, *lines = gzip.decompress(data[64:]).split(b"\n")
            state, before, first, rows, fresh = json.loads(head)
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        return (
            ListingPiece(before, first, rows, fresh, tuple(lines)) if state == self.state else None
        )

    def remove(self) -> None:
        """Remove all pieces."""
        folder = join(self.location, PIECES)
        for name in names_in(folder):
            remove_file(join(folder, name))
        if not is_uri(folder):
            remove_folder(folder)


def _shard(listed: dict[str, object], stamps: list[str]) -> Shard:
    values = dict(listed)
    entries = values.pop("entries")
    assert isinstance(entries, list)
    files = values.pop("files")
    assert isinstance(files, list)
    return Shard(
        **values | {"stamps": tuple(stamps), "files": tuple(files)},  # type: ignore[arg-type]
        entries=tuple(Entry(id, tuple(labels), *rest) for id, labels, *rest in entries),
    )
