"""A folder for each class, as torchvision's ImageFolder; images beside these are unlabelled."""

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
    """Image files below a folder.

    An image's id is its path below the folder, and its label is the first directory of that path.
    Hidden files and other files are skipped. Links are followed, except back to a directory that
    leads to them. The folder may be at a URI; then a file's stamp has the time of its last change
    only if the file system tells it.
    """

    location: str
    shard_rows: int
    kind: str = "folder"

    def shards(self) -> list[Shard]:
        """List the images, sorted by path.

        Raises:
            SchnRayError: no images, or a directory that cannot be read.
        """
        images = sorted(_images(self.location))
        if not images:
            raise SchnRayError(
                f"{self.location}: no images in there; expected a folder for each class with "
                f"{' '.join(EXTENSIONS)} files"
            )
        shards = []
        for number, (start, count) in enumerate(cut(len(images), self.shard_rows)):
            chunk = images[start : start + count]
            names, sizes, stamps = zip(*chunk, strict=True)
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
    """Yield the images below a folder: path below it (with ``/``), size in bytes, stamp."""
    if is_uri(root):
        yield from (file for file in files_below(root) if file[0].lower().endswith(EXTENSIONS))
    else:
        yield from _local_images(root)


def _local_images(root: str) -> Iterator[tuple[str, int, str]]:
    waiting = [("", frozenset[tuple[int, int]]())]
    while waiting:
        below, ancestors = waiting.pop()
        folder = os.path.join(root, below)
        try:
            status = os.stat(folder)
            with_this = ancestors | {(status.st_dev, status.st_ino)}
            entries = list(os.scandir(folder))
        except OSError as error:
            raise SchnRayError(f"{folder}: cannot be read: {error.strerror}") from error
        if len(with_this) == len(ancestors):
            continue  # a link back to a directory above it
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append((f"{below}{entry.name}/", with_this))
            elif entry.name.lower().endswith(EXTENSIONS):
                size, changed = _size_and_time(entry)
                yield below + entry.name, size, stamp(size, changed)


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = entry.stat()
    except OSError:  # a link whose target does not exist
        status = entry.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
