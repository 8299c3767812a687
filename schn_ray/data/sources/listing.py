"""Images that something names: a list, an annotation file, or the files' own names.

A family of data sets is one function, ``ReadListing``: it yields paths and what is said of them.
Everything else is the same for all of them and is here: shards, stamps, the way to an image.

Paths are relative to ``source.root``, by default the list's folder, after ``source.strip_prefix``
has been cut off. ``../`` and absolute paths are followed as long as they stay below that folder;
what leads out of it is put aside, so that a list from elsewhere cannot have other files read,
unless ``source.allow_outside`` says so.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import is_uri, kind_at, read_file, size_and_stamp
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Entry, Row, Shard, Unit, cut, units_of
from schn_ray.data.sources.roots import OutsideRootError, Root

TRAIN, QUERY, GALLERY, JUNK = "train", "test", "database", "junk"
_WORDS = {
    TRAIN: ("train", "training", "trn"),
    QUERY: ("test", "query", "queries", "val", "validation"),
    GALLERY: ("database", "db", "gallery", "retrieval"),
}
_SPLITS = {name: word for word, names in _WORDS.items() for name in names}


class Item(NamedTuple):
    """An image that a list names: its path, and what is said of it."""

    path: str
    entry: Entry


ReadListing = Callable[[str, SourceConfig], Iterable[Item]]


@dataclass(frozen=True)
class ListingSource:
    """Images that a list names.

    The list and the images may be at URIs. The stamp of a local image is its size and time of
    change; images at URIs have none, as asking for a million of them takes hours: there, an
    update notices what is new in the list and what is gone from it.

    Args:
        location: the list, or the data set's folder.
        config: where the paths lead.
        kind: name of the layout.
        items: reads the list; of a module, so that it can be sent.
        base: the folder that paths lie in, unless ``config.root`` says another.
    """

    location: str
    config: SourceConfig
    kind: str
    items: ReadListing
    base: str

    def shards(self) -> list[Shard]:
        """List the images.

        Raises:
            SchnRayError: nothing listed, or not in this layout.
        """
        listed = list(self.items(self.location, self.config))
        if not listed:
            raise SchnRayError(f"{self.location}: no images listed in there")
        runs = cut(len(listed), self.config.shard_rows)
        return [
            self._shard(number, listed[start : start + count])
            for number, (start, count) in enumerate(runs)
        ]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's images."""
        root = root_of(self.base, self.config)
        for unit in units_of(shard):
            yield self._row(root, unit)

    def _row(self, root: Root, unit: Unit) -> Row | BadRow:
        entry = unit.entry
        assert entry is not None
        line = f"{entry.list or self.location}:{entry.line}"
        if entry.problem:
            return BadRow(printable(entry.id), line, "read", f"line {entry.line}: {entry.problem}")
        found = fetch_listed(root, unit.file, entry.id)
        if isinstance(found, BadRow):
            return BadRow(found.id, line, "read", f"line {entry.line}: {found.reason}")
        place, image = found
        return Row(entry.id, image, entry.labels, place, entry.split, entry.camera)

    def _shard(self, number: int, listed: list[Item]) -> Shard:
        root = root_of(self.base, self.config)
        found = [_size_and_stamp(root, path) for path, _ in listed]
        # another id in the list is a change, too
        stamps = tuple(
            at if entry.id == path else f"{at} {printable(entry.id)}"
            for (_, at), (path, entry) in zip(found, listed, strict=True)
        )
        files, entries = zip(*listed, strict=True)
        size = sum(size for size, _ in found)
        return Shard(number, len(listed), 0, files, size, stamps, entries)


def root_of(base: str, config: SourceConfig) -> Root:
    """Return the folder that the paths of a list, or of a Parquet file, lie in."""
    return Root(config.root or base, config.strip_prefix, not config.allow_outside)


def folder_of(location: str) -> str:
    """Return the folder that paths in a file, or in the files of a folder, are relative to."""
    return location if kind_at(location) == "folder" else posixpath.dirname(location)


def fetch_listed(root: Root, path: str, row_id: str) -> tuple[str, bytes] | BadRow:
    """Return the place and the bytes of an image that a list names, or why there are none."""
    place = path
    try:
        path.encode()
        place = root.place(path)
        return place, read_file(place)
    except UnicodeEncodeError:
        reason = "its name is not UTF-8; rename the file"
    except OutsideRootError as error:
        reason = str(error)
    except (OSError, ValueError, SchnRayError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    return BadRow(printable(row_id), printable(place), "read", reason)


def read_text(place: str) -> str:
    """Read a list; bytes that are not UTF-8 survive, so that the row can be named.

    Raises:
        SchnRayError: it cannot be read.
    """
    try:
        return read_file(place).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise SchnRayError(f"{place} cannot be read: {error.strerror or error}") from error


def read_lines(place: str) -> list[str]:
    r"""Read a list's lines; empty ones at the end, as after a last newline, do not count."""
    lines = read_text(place).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def split_word(name: str) -> str | None:
    """Return what a file or folder of this name is for, None where the name does not say.

    >>> split_word("database"), split_word("Train2017"), split_word("cats")
    ('database', 'train', None)
    """
    return _SPLITS.get(name.lower().rstrip("0123456789_-"))


def label_names(value: Any) -> tuple[str, ...]:
    """Return the labels that a field of JSON holds: a text, a whole number, a list of them.

    Raises:
        ValueError: something else.

    >>> label_names(["cat", 7]), label_names(None), label_names(3)
    (('cat', '7'), (), ('3',))
    """
    several = value if isinstance(value, list) else [] if value is None else [value]
    for label in several:
        if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
            raise ValueError(f"the label {json.dumps(label)[:40]} is no text and no whole number")
    return tuple(dict.fromkeys(map(str, several)))


def printable(path: str) -> str:
    """Return a path with what is not UTF-8 spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _size_and_stamp(root: Root, path: str) -> tuple[int, str]:
    try:
        place = root.place(path)
        return (0, "") if is_uri(place) else size_and_stamp(place)
    except (OSError, ValueError):
        return 0, "unreadable"
