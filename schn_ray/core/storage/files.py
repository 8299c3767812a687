"""Where files are: a local path, or a URI that pyarrow or fsspec opens (s3://, gs://, ...).

Local files are read directly; ``file://`` is a local path in other words. Web addresses are
refused: no image is fetched from wherever a list of strangers points.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from schn_ray.core.errors import SchnRayError

URI = re.compile(r"(?P<root>(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://[^/]*)/*(?P<path>.*)", re.DOTALL)
_HALF_A_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
_CHUNK = 1 << 22
# without a network or credentials, Google's client would try again for many minutes
_PATIENCE = {"gs": "?retry_limit_seconds=60", "gcs": "?retry_limit_seconds=60"}
_WEB = ("http", "https", "ftp", "ftps")


def is_uri(place: str) -> bool:
    """Tell a URI from a local path.

    >>> is_uri("s3://bucket/a.png"), is_uri("/photos/a.png")
    (True, False)
    """
    return URI.fullmatch(place) is not None


def absolute(location: str) -> str:
    """Return an absolute local path, also for ``file://``, or a URI without a slash at its end."""
    if location.startswith("file://"):
        return os.path.abspath(unquote(location.removeprefix("file://").removeprefix("localhost")))
    return location.rstrip("/") if is_uri(location) else os.path.abspath(location)


def as_location(path: Path | str) -> str:
    """Return where a directory is, absolute; ``Path`` makes s3:/x of s3://x, which is undone.

    >>> as_location(Path("s3://bucket/store/"))
    's3://bucket/store'
    """
    text = str(path)
    found = _HALF_A_URI.match(text) if isinstance(path, Path) else None
    return absolute(text.replace(":/", "://", 1) if found else text)


def join(root: str, below: str) -> str:
    """Return the place of a path below a folder."""
    return f"{root}/{below}" if is_uri(root) else os.path.join(root, below)


def read_file(place: str) -> bytes:
    """Read a file; ``OSError`` if it cannot be, and for pipes, which would wait for ever."""
    if not is_uri(place):
        if not stat.S_ISREG(os.stat(place).st_mode):
            raise OSError("not a regular file")
        return Path(place).read_bytes()
    filesystem, path = filesystem_of(place)
    try:
        with filesystem.open_input_stream(path, compression=None) as file:
            return bytes(file.read())
    except OSError:
        raise
    except Exception as error:  # a file system of fsspec may raise anything
        raise OSError(f"{type(error).__name__}: {error}") from error


def open_file(place: str) -> pa.NativeFile:
    """Open a file to read any part of it; ``OSError`` if it cannot be."""
    if not is_uri(place):
        return pa.OSFile(place)
    filesystem, path = filesystem_of(place)
    return filesystem.open_input_file(path)


def chunks_of(place: str) -> Iterator[bytes]:
    """Read a file a few MiB at a time; ``OSError`` if it cannot be."""
    with open_file(place) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def sha256_and_size(place: str) -> tuple[str, int]:
    """Return the hexadecimal SHA-256 of a file's bytes, and how many they are."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks_of(place):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def kind_at(location: str) -> str | None:
    """Return ``file`` or ``folder``, or None where there is neither.

    Raises:
        SchnRayError: a URI that nothing opens.
    """
    if not is_uri(location):
        return "folder" if os.path.isdir(location) else "file" if os.path.exists(location) else None
    filesystem, path = filesystem_of(location)
    found = filesystem.get_file_info(path).type
    return {fs.FileType.File: "file", fs.FileType.Directory: "folder"}.get(found)


def stamp(size: int, changed_ns: int | None) -> str:
    """Tell two states of a file apart without reading it."""
    return f"{size}-{changed_ns}"


def stamp_of(path: Path) -> str:
    """Return the stamp of a local file, links followed."""
    status = path.stat()
    return stamp(status.st_size, status.st_mtime_ns)


def size_and_stamp(place: str) -> tuple[int, str]:
    """Return a file's size in bytes and its stamp; ``OSError`` where there is none."""
    if not is_uri(place):
        status = os.stat(place)
        return status.st_size, stamp(status.st_size, status.st_mtime_ns)
    filesystem, path = filesystem_of(place)
    info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(f"{place}: no such file")
    return info.size or 0, stamp(info.size, info.mtime_ns)


def files_below(location: str) -> Iterator[tuple[str, int, str]]:
    """List a folder at a URI: path below it, size in bytes, stamp; hidden ones are passed over."""
    filesystem, root = filesystem_of(location)
    all_below = fs.FileSelector(root, recursive=True, allow_not_found=True)
    for info in filesystem.get_file_info(all_below):
        below = info.path.removeprefix(root).lstrip("/")
        if info.type == fs.FileType.File and not any(p.startswith(".") for p in below.split("/")):
            yield below, info.size or 0, stamp(info.size, info.mtime_ns)


def names_in(location: str) -> frozenset[str]:
    """List the names right in a folder, hidden ones left out; none where there is no folder."""
    if not is_uri(location):
        found = os.listdir(location) if os.path.isdir(location) else []
        return frozenset(name for name in found if not name.startswith("."))
    filesystem, root = filesystem_of(location)
    infos = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    names = (posixpath.basename(info.path.rstrip("/")) for info in infos)
    return frozenset(name for name in names if not name.startswith("."))


def write_file(place: str, data: bytes | memoryview) -> None:
    """Write a file whole or not at all; an older one is replaced."""
    if is_uri(place):
        filesystem, path = filesystem_of(place)
        with filesystem.open_output_stream(path) as stream:  # it appears when it is closed
            stream.write(data)
        return
    beside = f"{place}.{uuid.uuid4().hex}.partial"  # another writer may be at the same file
    os.makedirs(os.path.dirname(place), exist_ok=True)
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_file(place: str) -> Iterator[Path]:
    """Name a file on this machine to write; when the block ends well, it goes to its place, whole.

    Its name is its own, as a worker that was given up may still be at work on the same file.
    """
    folder = tempfile.gettempdir() if is_uri(place) else os.path.dirname(place)
    os.makedirs(folder, exist_ok=True)
    beside = Path(folder, f"{posixpath.basename(place)}.{uuid.uuid4().hex}.partial")
    try:
        yield beside
        send_file(beside, place) if is_uri(place) else beside.rename(place)
    finally:
        beside.unlink(missing_ok=True)


def send_file(path: Path, uri: str) -> None:
    """Copy a file of this machine to a URI, where it appears whole."""
    filesystem, there = filesystem_of(uri)
    with filesystem.open_output_stream(there) as stream:
        for chunk in chunks_of(str(path)):
            stream.write(chunk)


def remove_file(place: str) -> None:
    """Remove a file, if it is there."""
    if not is_uri(place):
        return Path(place).unlink(missing_ok=True)
    filesystem, path = filesystem_of(place)
    if filesystem.get_file_info(path).type == fs.FileType.File:
        filesystem.delete_file(path)
    return None


def remove_folder(place: str) -> None:
    """Remove a folder with all below it, as far as that can be done."""
    if not is_uri(place):
        return shutil.rmtree(place, ignore_errors=True)
    for below, _, _ in files_below(place):
        remove_file(join(place, below))
    return None


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI and the path in it.

    Raises:
        SchnRayError: a web address, or a kind of file system that is not installed.
    """
    parts = URI.fullmatch(uri)
    assert parts, uri
    filesystem, base = _filesystem(parts["root"], parts["scheme"].lower())
    return filesystem, posixpath.join(base, parts["path"]) if base else parts["path"]


@functools.lru_cache(maxsize=16)
def _filesystem(root: str, scheme: str) -> tuple[fs.FileSystem, str]:
    if scheme in _WEB:
        raise SchnRayError(f"{root}: images are not fetched from web addresses; download them")
    patience = "" if "?" in root else _PATIENCE.get(scheme, "")
    try:
        return fs.FileSystem.from_uri(root + patience)
    except OSError as error:
        raise SchnRayError(f"{root} cannot be opened: {error}") from error
    except (ValueError, NotImplementedError):  # Arrow does not know it, or was built without it
        return _of_fsspec(root)


def _of_fsspec(root: str) -> tuple[fs.FileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        filesystem, base = url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise SchnRayError(
            f"{root} cannot be opened ({error}); pyarrow opens s3://, gs:// and hdfs://, other "
            "kinds need fsspec and its package for them, such as: pip install fsspec adlfs"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), base
