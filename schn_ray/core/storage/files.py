"""Read, write and list files at local paths and at URIs (s3://, gs://, ...).

A *location* is a string: a local path, or a URI that pyarrow or fsspec opens. ``file://`` URIs
become local paths. Web addresses (http, ftp) are refused, so that a list from the internet cannot
make this machine fetch any address.

This is not ``universal_pathlib``: that reads everything through fsspec, while pyarrow's own file
systems read S3 and GCS in native threads and also open Parquet and Arrow files.
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
_SHORTENED_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
_CHUNK = 1 << 22
# without a network or credentials, Google's client would try again for many minutes
_RETRY_LIMIT = {"gs": "?retry_limit_seconds=60", "gcs": "?retry_limit_seconds=60"}
_WEB = ("http", "https", "ftp", "ftps")


def is_uri(location: str) -> bool:
    """Tell a URI from a local path.

    Args:
        location: a local path or a URI.

    Example:
        >>> is_uri("s3://bucket/a.png"), is_uri("/photos/a.png")
        (True, False)
    """
    return URI.fullmatch(location) is not None


def absolute(location: str) -> str:
    """Return an absolute local path, or a URI without a slash at its end.

    Args:
        location: a local path, a ``file://`` URI (becomes a local path), or another URI.
    """
    if location.startswith("file://"):
        return os.path.abspath(unquote(location.removeprefix("file://").removeprefix("localhost")))
    return location.rstrip("/") if is_uri(location) else os.path.abspath(location)


def as_location(path: Path | str) -> str:
    """Return a path or URI as an absolute location.

    Args:
        path: ``Path("s3://x")`` is accepted too: ``Path`` shortens it to ``s3:/x``, and the slash
            is put back.

    Example:
        >>> as_location(Path("s3://bucket/store/"))
        's3://bucket/store'
    """
    text = str(path)
    lost_a_slash = isinstance(path, Path) and _SHORTENED_URI.match(text)
    return absolute(text.replace(":/", "://", 1) if lost_a_slash else text)


def join(root: str, below: str) -> str:
    """Return the location of a file in a folder.

    Args:
        root: location of the folder.
        below: path relative to it, with ``/``.
    """
    return f"{root}/{below}" if is_uri(root) else os.path.join(root, below)


def read_file(location: str) -> bytes:
    """Return the content of a file.

    Args:
        location: of the file.

    Raises:
        OSError: it cannot be read, or is not a regular file: reading a pipe could wait for ever.
    """
    if not is_uri(location):
        if not stat.S_ISREG(os.stat(location).st_mode):
            raise OSError("not a regular file")
        return Path(location).read_bytes()
    filesystem, path = filesystem_of(location)
    try:
        with filesystem.open_input_stream(path, compression=None) as file:
            return bytes(file.read())
    except OSError:
        raise
    except Exception as error:  # a file system of fsspec may raise anything
        raise OSError(f"{type(error).__name__}: {error}") from error


def open_file(location: str) -> pa.NativeFile:
    """Open a file that can be read from any offset.

    Args:
        location: of the file.

    Raises:
        OSError: it cannot be opened.
    """
    if not is_uri(location):
        return pa.OSFile(location)
    filesystem, path = filesystem_of(location)
    return filesystem.open_input_file(path)


def chunks_of(location: str) -> Iterator[bytes]:
    """Yield the content of a file, 4 MiB at a time.

    Args:
        location: of the file.

    Raises:
        OSError: it cannot be read.
    """
    with open_file(location) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def sha256_and_size(location: str) -> tuple[str, int]:
    """Return the SHA-256 of a file's content, in hexadecimal, and its size in bytes.

    Args:
        location: of the file.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    for chunk in chunks_of(location):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def kind_at(location: str) -> str | None:
    """Return ``"file"``, ``"folder"``, or None where nothing exists.

    Args:
        location: of a file, a folder, or nothing.

    Raises:
        SchnRayError: a URI of a kind that cannot be opened.
    """
    if not is_uri(location):
        return "folder" if os.path.isdir(location) else "file" if os.path.exists(location) else None
    filesystem, path = filesystem_of(location)
    kinds = {fs.FileType.File: "file", fs.FileType.Directory: "folder"}
    return kinds.get(filesystem.get_file_info(path).type)


def stamp(size: int, changed_ns: int | None) -> str:
    """Return a text that changes when a file changes, so that it need not be read to notice.

    Args:
        size: of the file, in bytes.
        changed_ns: time of its last change, in nanoseconds; None if the file system has none.
    """
    return f"{size}-{changed_ns}"


def stamp_of(path: Path) -> str:
    """Return the stamp of a local file.

    Args:
        path: of the file; symbolic links are followed.
    """
    status = path.stat()
    return stamp(status.st_size, status.st_mtime_ns)


def size_and_stamp(location: str) -> tuple[int, str]:
    """Return the size of a file in bytes, and its stamp.

    Args:
        location: of the file.

    Raises:
        OSError: there is no such file.
    """
    if not is_uri(location):
        status = os.stat(location)
        return status.st_size, stamp(status.st_size, status.st_mtime_ns)
    filesystem, path = filesystem_of(location)
    info = filesystem.get_file_info(path)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(f"{location}: no such file")
    return info.size or 0, stamp(info.size, info.mtime_ns)


def files_below(location: str) -> Iterator[tuple[str, int, str]]:
    """List all files below a folder at a URI, without hidden files and folders.

    Args:
        location: URI of the folder.

    Yields:
        Path relative to the folder, size in bytes, and stamp, of each file.
    """
    filesystem, root = filesystem_of(location)
    all_below = fs.FileSelector(root, recursive=True, allow_not_found=True)
    for info in filesystem.get_file_info(all_below):
        below = info.path.removeprefix(root).lstrip("/")
        if info.type == fs.FileType.File and not any(p.startswith(".") for p in below.split("/")):
            yield below, info.size or 0, stamp(info.size, info.mtime_ns)


def names_in(location: str) -> frozenset[str]:
    """Return the names of files and folders in a folder, without hidden ones.

    Args:
        location: of the folder; if it does not exist, the result is empty.
    """
    if not is_uri(location):
        entries = os.listdir(location) if os.path.isdir(location) else []
        return frozenset(name for name in entries if not name.startswith("."))
    filesystem, root = filesystem_of(location)
    infos = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    names = (posixpath.basename(info.path.rstrip("/")) for info in infos)
    return frozenset(name for name in names if not name.startswith("."))


def write_file(location: str, data: bytes | memoryview) -> None:
    """Write a file as a whole: a reader sees the old content or the new one, never a part.

    Args:
        location: of the file; an existing one is replaced, a missing local folder is created.
        data: its content.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    """
    if is_uri(location):
        filesystem, path = filesystem_of(location)
        with filesystem.open_output_stream(
            path, compression=None
        ) as stream:  # visible when it is closed
            stream.write(data)
        return
    partial_path = f"{location}.{uuid.uuid4().hex}.partial"  # unique: others may write it too
    os.makedirs(os.path.dirname(location), exist_ok=True)
    try:
        with open(partial_path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial_path, location)
    except OSError:
        Path(partial_path).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_file(location: str) -> Iterator[Path]:
    """Let the block write a temporary local file; if it succeeds, move the file to ``location``.

    Readers of ``location`` see the whole file or none. The temporary name is unique, because a
    worker that was given up for dead may still be writing the same file.

    Args:
        location: of the new file; a missing local folder is created.

    Yields:
        Path of the temporary file.
    """
    folder = tempfile.gettempdir() if is_uri(location) else os.path.dirname(location)
    os.makedirs(folder, exist_ok=True)
    partial_path = Path(folder, f"{posixpath.basename(location)}.{uuid.uuid4().hex}.partial")
    try:
        yield partial_path
        if is_uri(location):
            send_file(partial_path, location)
        else:
            _flush_to_disk(partial_path)
            partial_path.rename(location)
    finally:
        partial_path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    # a receipt is written after its file: a loss of power must not leave the receipt alone
    with path.open("rb") as file:
        os.fsync(file.fileno())


def send_file(path: Path, uri: str) -> None:
    """Copy a local file to a URI, where it becomes visible when it is complete.

    Args:
        path: of the local file.
        uri: of the copy.
    """
    filesystem, remote_path = filesystem_of(uri)
    with filesystem.open_output_stream(remote_path, compression=None) as stream:
        for chunk in chunks_of(str(path)):
            stream.write(chunk)


def copied(uri: str, copy: str) -> bool:
    """Copy a file within an object store, which nothing passes this machine for.

    Args:
        uri: of the file.
        copy: URI of the copy, in the same store.

    Returns:
        Whether the store could do it; if not, upload the file.
    """
    filesystem, path = filesystem_of(uri)
    try:
        filesystem.copy_file(path, filesystem_of(copy)[1])
    except (OSError, NotImplementedError):  # S3 copies up to 5 GB
        return False
    return True


def remove_file(location: str) -> None:
    """Remove a file, if it exists.

    Args:
        location: of the file.
    """
    if not is_uri(location):
        return Path(location).unlink(missing_ok=True)
    filesystem, path = filesystem_of(location)
    if filesystem.get_file_info(path).type == fs.FileType.File:
        filesystem.delete_file(path)
    return None


def remove_folder(location: str) -> None:
    """Remove a folder with everything in it; local files that cannot be removed are left.

    Args:
        location: of the folder.
    """
    if not is_uri(location):
        return shutil.rmtree(location, ignore_errors=True)
    for below, _, _ in files_below(location):
        remove_file(join(location, below))
    filesystem, path = filesystem_of(location)
    with contextlib.suppress(
        FileNotFoundError
    ):  # object stores may keep an entry of the empty folder
        filesystem.delete_dir(path)
    return None


def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI, and the path in it.

    Args:
        uri: such as ``s3://bucket/store``.

    Raises:
        SchnRayError: a web address, or a file system for which no package is installed.
    """
    parts = URI.fullmatch(uri)
    assert parts, uri
    filesystem, base = _filesystem(parts["root"], parts["scheme"].lower())
    return filesystem, posixpath.join(base, parts["path"]) if base else parts["path"]


@functools.lru_cache(maxsize=16)
def _filesystem(root: str, scheme: str) -> tuple[fs.FileSystem, str]:
    if scheme in _WEB:
        raise SchnRayError(f"{root}: images are not fetched from web addresses; download them")
    retry_limit = "" if "?" in root else _RETRY_LIMIT.get(scheme, "")
    try:
        return fs.FileSystem.from_uri(root + retry_limit)
    except OSError as error:
        raise SchnRayError(f"{root} cannot be opened: {error}") from error
    except (ImportError, ValueError, NotImplementedError):
        # Arrow does not know it, or was built without it
        return _of_fsspec(root)


def _of_fsspec(root: str) -> tuple[fs.FileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        filesystem, base = url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise SchnRayError(
            f"{root} cannot be opened ({error}); pyarrow opens s3://, gs:// and hdfs://, other "
            "kinds need fsspec's package for them: hf:// pip install 'schn-ray[hub]', az:// pip "
            "install adlfs"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), base
