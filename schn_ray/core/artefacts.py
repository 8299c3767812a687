"""Finished directories, opened for reading: no file is used before its SHA-256 was compared.

``Artefact.read`` hashes the very bytes that it returns. ``Artefact.file`` and ``Artefact.check``
hash a file once in a process, and again when its size, times or inode are others. Nothing is
remembered between processes: a file that was right yesterday may be damaged today with its time
kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.files import read_file

THREADS = min(8, os.cpu_count() or 1)  # that hash; hashing lets other threads run
_State = tuple[int, ...]
_verified: dict[tuple[str, str], _State] = {}


class DamagedArtefact(SchnRayError):
    """A file of a finished directory is missing, or is not what was written."""


class Artefact:
    """A finished directory and its manifest; see ``open_artefact``.

    Args:
        path: the directory.
        manifest: what it says of its files.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest

    def read(self, name: str) -> bytes:
        """Return the bytes of one file, which are those that were written.

        Args:
            name: as in ``Manifest.files``, such as ``model/hasher.yaml``.

        Raises:
            DamagedArtefact: it is missing, differs or is not in the manifest.
        """
        return read_verified(str(self.path / name), self._expected(name), self.manifest.kind)

    def file(self, name: str) -> Path:
        """Return the path of one file, for readers that map it or want a path.

        Args:
            name: as in ``Manifest.files``.

        Raises:
            DamagedArtefact: it is missing, differs or is not in the manifest.
        """
        self._compare(name)
        return self.path / name

    def check(self, names: Iterable[str] | None = None, anew: bool = False) -> None:
        """Compare files with the manifest, their sizes first, then several hashes at a time.

        Args:
            names: as in ``Manifest.files``; by default, all files.
            anew: hash also what this process has hashed before.

        Raises:
            DamagedArtefact: as ``file``.
        """
        names = list(self.manifest.files if names is None else names)
        self.check_sizes(names)
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda name: self._compare(name, anew), names):
                pass

    def check_sizes(self, names: Iterable[str] | None = None) -> None:
        """Compare the sizes of files with the manifest; that finds missing and cut files at once.

        Args:
            names: as in ``Manifest.files``; by default, all files.

        Raises:
            DamagedArtefact: one is missing, of another size or not in the manifest.
        """
        for name in self.manifest.files if names is None else names:
            self._expected(name)
            self._state(name)

    def _compare(self, name: str, anew: bool = False) -> None:
        expected, state = self._expected(name), self._state(name)
        key = str((self.path / name).absolute()), expected
        if not anew and _verified.get(key) == state:
            return
        _verified.pop(key, None)
        if sha256_file(self.path / name) != expected:
            raise self._damaged(name, "differs from its manifest")
        _verified[key] = state  # of before: what is changed meanwhile is hashed again

    def _state(self, name: str) -> _State:
        """Return what changes when a file does; its size is right."""
        try:
            status = (self.path / name).stat()
        except FileNotFoundError as error:
            raise self._damaged(name, "is missing") from error
        if (size := self.manifest.sizes.get(name, status.st_size)) != status.st_size:
            raise self._damaged(
                name, f"differs from its manifest: {status.st_size:,} bytes, expected {size:,}"
            )
        # the time of a change of the inode cannot be set back
        times = status.st_mtime_ns, status.st_ctime_ns
        return status.st_size, *times, status.st_dev, status.st_ino

    def _expected(self, name: str) -> str:
        if name not in self.manifest.files:
            raise self._damaged(name, "is not in its manifest")
        return self.manifest.files[name]

    def _damaged(self, name: str, what: str) -> DamagedArtefact:
        return DamagedArtefact(f"{self.path / name} {what}; make the {self.manifest.kind} again")


def open_artefact(path: Path, kind: str) -> Artefact:
    """Open a finished directory; its files are checked as they are used.

    Args:
        path: the directory, on this machine.
        kind: that is expected, such as ``run``.

    Raises:
        SchnRayError: not finished, of another kind or format, or its manifest is damaged.
    """
    return Artefact(path, read_manifest(path, kind))


def read_verified(location: str, sha256: str, kind: str) -> bytes:
    """Return the bytes of a file at a path or URI, which have this SHA-256.

    Args:
        location: of the file.
        sha256: in hexadecimal.
        kind: of the directory that it belongs to, for the error.

    Raises:
        DamagedArtefact: it is missing or differs.
    """
    try:
        data = read_file(location)
    except FileNotFoundError as error:
        raise DamagedArtefact(f"{location} is missing; make the {kind} again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedArtefact(f"{location} differs from its manifest; make the {kind} again")
    return data
