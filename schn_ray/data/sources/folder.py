"""A folder a class, as torchvision's ImageFolder; images right in the root are unlabelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import files_below, is_uri, join, read_file, stamp
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut
from schn_ray.data.sources.listing import printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif")


@dataclass(frozen=True)
class FolderSource:
    """Image files under a folder; a row's id is its path below it, its label the first part.

    Other files and hidden ones are passed over. Links are followed, but not back to a folder that
    the walk came through. The folder may be at a URI; there, a file's stamp has the time only if
    the file system tells it.
    """

    location: str
    shard_rows: int
    kind: str = "folder"

    def shards(self) -> list[Shard]:
        """List the images, sorted by path.

        Raises:
            SchnRayError: no images, or a folder that may not be read.
        """
        found = sorted(_images(self.location))
        if not found:
            raise SchnRayError(
                f"{self.location}: no images in there; wanted a folder a class with "
                f"{' '.join(EXTENSIONS)} files"
            )
        shards = []
        for number, (start, count) in enumerate(cut(len(found), self.shard_rows)):
            part = found[start : start + count]
            names, sizes, stamps = zip(*part, strict=True)
            shards.append(Shard(number, count, 0, names, sum(sizes), stamps))
        return shards

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's files."""
        for name in shard.files:
            path = join(self.location, name)
            folder, slash, _ = name.partition("/")
            try:
                name.encode()
                yield Row(name, read_file(path), (folder,) if slash else (), path)
            except UnicodeEncodeError:
                reason = "its name is not UTF-8; rename the file"
                yield BadRow(printable(name), printable(path), "read", reason)
            except OSError as error:
                yield BadRow(name, path, "read", error.strerror or str(error))


def _images(root: str) -> Iterator[tuple[str, int, str]]:
    """Walk the tree: (path below the root with '/', size in bytes, stamp)."""
    if is_uri(root):
        yield from (file for file in files_below(root) if file[0].lower().endswith(EXTENSIONS))
    else:
        yield from _local_images(root)


def _local_images(root: str) -> Iterator[tuple[str, int, str]]:
    waiting = [("", frozenset[tuple[int, int]]())]
    while waiting:
        below, above = waiting.pop()
        here = os.path.join(root, below)
        try:
            status = os.stat(here)
            inside = above | {(status.st_dev, status.st_ino)}
            entries = list(os.scandir(here))
        except OSError as error:
            raise SchnRayError(f"{here}: cannot be read: {error.strerror}") from error
        if len(inside) == len(above):
            continue  # a link back to a folder that we came through
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append((f"{below}{entry.name}/", inside))
            elif entry.name.lower().endswith(EXTENSIONS):
                size, changed = _size_and_time(entry)
                yield below + entry.name, size, stamp(size, changed)


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:  # a link to nowhere
        status = entry.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
