"""Images that a list names: a text file, an annotation file, or the images' own file names.

Each of these data sets needs one function, ``ReadListing``, which yields paths with their labels.
The rest is the same for all of them and is in this module: shards, stamps, reading the images.

Paths are relative to ``source.root``, by default the list's folder. ``source.strip_prefix`` is cut
off first. ``../`` and absolute paths may be used within that folder. Images outside of it are
quarantined, so that a list from a stranger cannot make us read other files;
``source.allow_outside`` permits them.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import is_uri, kind_at, open_file, read_file, size_and_stamp
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import (
    BadRow,
    Entry,
    Row,
    Shard,
    Unit,
    shard_size,
    shard_start,
    units_of,
)
from schn_ray.data.sources.roots import OutsideRootError, Root

TRAIN, QUERY, GALLERY, JUNK = "train", "test", "database", "junk"
_SPLIT_NAMES = {
    TRAIN: ("train", "training", "trn"),
    QUERY: ("test", "query", "queries", "val", "validation"),
    GALLERY: ("database", "db", "gallery", "retrieval"),
}
_SPLIT_OF_NAME = {name: split for split, names in _SPLIT_NAMES.items() for name in names}


class Item(NamedTuple):
    """An image that a list names: its path, and its id, labels and so on."""

    path: str
    entry: Entry


ReadListing = Callable[[str, SourceConfig], Iterable[Item]]
"""Lists the images of a data set at a location: its list, or its folder."""


@dataclass(frozen=True)
class ListingSource:
    """Images that a list names; list and images may be at URIs.

    The stamp of a local image is its size and time of change. Images at URIs have no stamp, as
    asking for a million of them takes hours. An update notices which of them the list adds or
    drops, not whether one has changed.

    Args:
        location: the list, or the data set's folder.
        config: how to find the images.
        kind: name of the layout.
        read_items: reads the list; a function of a module, so that it can be pickled.
        base: the folder that paths are relative to, unless ``config.root`` names another.
    """

    location: str
    config: SourceConfig
    kind: str
    read_items: ReadListing
    base: str

    def shards(self) -> Iterator[Shard]:
        """List the images, as the list is read.

        Raises:
            SchnRayError: the list names no images, or is not in this layout.
        """
        return self._shards_from(0)

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        """List the shards that follow one of ``shards``; images before it are not looked at."""
        return self._shards_from(last.number + 1)

    def _shards_from(self, number: int) -> Iterator[Shard]:
        items = iter(self.read_items(self.location, self.config))
        size = self.config.shard_rows
        for _ in islice(items, shard_start(number, size)):
            pass
        while chunk := list(islice(items, shard_size(number, size))):
            yield self._shard(number, chunk)
            number += 1
        if not number:
            raise SchnRayError(f"{self.location}: no images listed in there")

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
        fetched = fetch_listed(root, unit.file, entry.id)
        if isinstance(fetched, BadRow):
            return BadRow(fetched.id, line, "read", f"line {entry.line}: {fetched.reason}")
        location, image = fetched
        return Row(entry.id, image, entry.labels, location, entry.split, entry.camera)

    def _shard(self, number: int, items: list[Item]) -> Shard:
        root = root_of(self.base, self.config)
        sizes_and_stamps = [_size_and_stamp(root, path) for path, _ in items]
        # an update must also notice that the list gives the image another id
        stamps = tuple(
            stamp if entry.id == path else f"{stamp} {printable(entry.id)}"
            for (_, stamp), (path, entry) in zip(sizes_and_stamps, items, strict=True)
        )
        files, entries = zip(*items, strict=True)
        size = sum(size for size, _ in sizes_and_stamps)
        return Shard(number, len(items), 0, files, size, stamps, entries)


def root_of(base: str, config: SourceConfig) -> Root:
    """Return the folder that the paths in a list or in a table are relative to.

    Args:
        base: that folder, unless ``config.root`` names another.
        config: also has the prefix to cut off, and whether images may be outside.
    """
    return Root(config.root or base, config.strip_prefix, not config.allow_outside)


def folder_of(location: str) -> str:
    """Return a source's folder: the location itself, or the folder that a file is in.

    Args:
        location: a path or URI of a file or folder.
    """
    return location if kind_at(location) == "folder" else posixpath.dirname(location)


def fetch_listed(root: Root, path: str, row_id: str) -> tuple[str, bytes] | BadRow:
    """Read an image that a list names.

    Args:
        root: the folder that the path is relative to.
        path: as it is in the list.
        row_id: for the ``BadRow``.

    Returns:
        The image's location and its bytes, or a ``BadRow`` that says why it cannot be read.
    """
    location = path
    try:
        path.encode()
        location = root.resolve(path)
        return location, read_file(location)
    except UnicodeEncodeError:
        reason = "its name is not UTF-8; rename the file"
    except OutsideRootError as error:
        reason = str(error)
    except (OSError, ValueError, SchnRayError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    return BadRow(printable(row_id), printable(location), "read", reason)


def text_lines(location: str, newline: str = "\n") -> Iterator[str]:
    """Yield a list's lines with what ends them; the list may be longer than memory.

    Bytes that are not UTF-8 become surrogates, so that the bad line can be reported.

    Args:
        location: the file, a path or a URI.
        newline: what ends a line; if empty, all that Python takes for an end of a line.

    Raises:
        SchnRayError: the file cannot be read.
    """
    try:
        if not is_uri(location) and not stat.S_ISREG(os.stat(location).st_mode):
            raise OSError("not a regular file")  # reading a pipe could wait for ever
        with io.TextIOWrapper(open_file(location), "utf-8-sig", "surrogateescape", newline) as file:
            yield from file
    except OSError as error:
        raise SchnRayError(f"{location} cannot be read: {error.strerror or error}") from error


def read_lines(location: str) -> list[str]:
    """Read a list's lines, without the empty ones at the end.

    Args:
        location: the file, a path or a URI.

    Raises:
        SchnRayError: the file cannot be read.
    """
    lines = [line.removesuffix("\n") for line in text_lines(location)]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def split_word(name: str) -> str | None:
    """Return the split that a file's or folder's name stands for; None if it names none.

    Args:
        name: without its ending; case, and digits at the end, do not matter.

    >>> split_word("database"), split_word("Train2017"), split_word("cats")
    ('database', 'train', None)
    """
    return _SPLIT_OF_NAME.get(name.lower().rstrip("0123456789_-"))


def label_names(value: Any) -> tuple[str, ...]:
    """Return the labels in a JSON value, as text and without repetition.

    Args:
        value: text, a whole number, a list of them, or None.

    Raises:
        ValueError: any other value.

    >>> label_names(["cat", 7]), label_names(None), label_names(3)
    (('cat', '7'), (), ('3',))
    """
    labels = value if isinstance(value, list) else [] if value is None else [value]
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
            raise ValueError(
                f"the label {json.dumps(label)[:40]} is neither text nor a whole number"
            )
    return tuple(dict.fromkeys(map(str, labels)))


def printable(path: str) -> str:
    r"""Return a path with the bytes that are not UTF-8 written as ``\xff``.

    Args:
        path: as the operating system gave it.
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def _size_and_stamp(root: Root, path: str) -> tuple[int, str]:
    try:
        location = root.resolve(path)
        return (0, "") if is_uri(location) else size_and_stamp(location)
    except (OSError, ValueError):
        return 0, "unreadable"
