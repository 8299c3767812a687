"""Finished directories, opened for reading: no file is used before its SHA-256 was compared.

``Artefact.read`` hashes the very bytes that it returns. ``Artefact.file`` hashes a file once in a
process, and again when its size, time of change or inode is another one. Nothing is remembered
between processes: a file that was right yesterday may be damaged today with its time kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest

_State = tuple[int, int, int]
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
        expected = self._expected(name)
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise self._damaged(name, "is missing") from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise self._damaged(name, "differs from its manifest")
        return data

    def file(self, name: str) -> Path:
        """Return the path of one file, for readers that map it or want a path.

        Args:
            name: as in ``Manifest.files``.

        Raises:
            DamagedArtefact: it is missing, differs or is not in the manifest.
        """
        expected, file = self._expected(name), self.path / name
        try:
            status = file.stat()
        except FileNotFoundError as error:
            raise self._damaged(name, "is missing") from error
        state = status.st_size, status.st_mtime_ns, status.st_ino
        if self.manifest.sizes.get(name, status.st_size) != status.st_size:
            raise self._damaged(name, "differs from its manifest")
        key = str(file.absolute()), expected
        if _verified.get(key) != state:
            if sha256_file(file) != expected:
                raise self._damaged(name, "differs from its manifest")
            _verified[key] = state
        return file

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
