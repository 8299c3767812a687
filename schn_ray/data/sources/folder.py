"""A folder for each class, as torchvision's ImageFolder; images beside these are unlabelled."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from pyarrow import fs

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of, is_uri, join, read_file, stamp
from schn_ray.data.shards.rows import BadRow, Row, Shard
from schn_ray.data.sources.listing import printable

_AHEAD = 16  # folders of an object store that are listed before their turn
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"),
    *(".heic", ".heif"),
)


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

    def shards(self) -> Iterator[Shard]:
        """List the images, sorted by path; a directory is listed when its turn comes.

        Raises:
            SchnRayError: no images, or a directory that cannot be read.
        """
        return self._shards_from(0, "")

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        """List the shards that follow one of ``shards``; directories before it are left out."""
        return self._shards_from(last.number + 1, last.files[-1])

    def _shards_from(self, number: int, after: str) -> Iterator[Shard]:
        images = _images(self.location, after)
        while chunk := list(islice(images, self.shard_rows)):
            names, sizes, stamps = zip(*chunk, strict=True)
            yield Shard(number, len(chunk), 0, names, sum(sizes), stamps)
            number += 1
        if not number:
            raise SchnRayError(
                f"{self.location}: no images in there; expected a folder for each class with "
                f"{' '.join(EXTENSIONS)} files"
            )

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


_File = tuple[str, int, str]  # path below the folder, size in bytes, stamp
_Ancestors = frozenset[tuple[int, int]]


def _images(root: str, after: str = "") -> Iterator[_File]:
    """Yield the images below a folder that come after a path, sorted by path.

    The directories on the way to an image are in memory, with the names in them, and no others.
    A directory's name counts with its slash: then this order is that of the whole paths.
    """
    if not is_uri(root):
        yield from _walk(_local_folder(root, "", after, frozenset()))
        return
    pool = ThreadPoolExecutor(_AHEAD, "listing")
    try:
        yield from _walk(_remote_folder(pool, root, "", after))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _walk(folder: _Folder) -> Iterator[_File]:
    waiting = [folder]  # not recursion, which has a limit
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif isinstance(entry, tuple):
            yield entry
        else:
            waiting.append(entry)


_Folder = Iterator["_File | _Folder"]  # its images, and the folders in it, in order


def _is_before(path: str, after: str) -> bool:
    """Tell whether an image, or all in a folder, was listed already."""
    return path <= after and not (path.endswith("/") and after.startswith(path))


def _local_folder(root: str, below: str, after: str, ancestors: _Ancestors) -> _Folder:
    folder = os.path.join(root, below)
    try:
        status = os.stat(folder)
        ancestors_and_this = ancestors | {(status.st_dev, status.st_ino)}
        if len(ancestors_and_this) == len(ancestors):
            return  # a link back to a directory above it
        with os.scandir(folder) as entries:
            names = sorted(name for entry in entries if (name := _name_of(entry)))
    except OSError as error:
        raise SchnRayError(f"{folder}: cannot be read: {error.strerror}") from error
    for name in names:
        path = below + name
        if _is_before(path, after):
            continue
        if name.endswith("/"):
            yield _local_folder(root, path, after, ancestors_and_this)
        else:
            size, changed = _size_and_time(os.path.join(root, path))
            yield path, size, stamp(size, changed)


def _name_of(entry: os.DirEntry[str]) -> str:
    """Return an image's name, a folder's name with a slash, or nothing for other entries."""
    if entry.name.startswith("."):
        return ""
    if _is_folder(entry):
        return f"{entry.name}/"
    return entry.name if entry.name.lower().endswith(EXTENSIONS) else ""


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a link whose target does not exist, or a file that has gone meanwhile
        try:
            status = os.lstat(path)
        except OSError:
            return 0, 0
    return status.st_size, status.st_mtime_ns


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


_Entries = dict[str, tuple[int, str]]  # name, of a folder with a slash -> size and stamp


def _remote_folder(
    pool: ThreadPoolExecutor,
    root: str,
    below: str,
    after: str,
    listed: Future[_Entries] | None = None,
) -> _Folder:
    entries = listed.result() if listed else _remote_entries(root, below)
    names = [name for name in sorted(entries) if not _is_before(below + name, after)]
    folders = (name for name in names if name.endswith("/"))
    ahead = deque[Future[_Entries]]()  # each takes a request or more, and an answer's time
    for name in names:
        if name.endswith("/"):
            for following in islice(folders, _AHEAD - len(ahead)):
                ahead.append(pool.submit(_remote_entries, root, below + following))
            yield _remote_folder(pool, root, below + name, after, ahead.popleft())
        elif name.lower().endswith(EXTENSIONS):
            yield below + name, *entries[name]


def _remote_entries(root: str, below: str) -> _Entries:
    """List one folder; the store sends it page by page."""
    filesystem, path = filesystem_of(join(root, below.rstrip("/")) if below else root)
    infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return dict(_named(info) for info in infos if not info.base_name.startswith("."))


def _named(info: fs.FileInfo) -> tuple[str, tuple[int, str]]:
    slash = "/" if info.type == fs.FileType.Directory else ""
    return info.base_name + slash, (info.size or 0, stamp(info.size, info.mtime_ns))
