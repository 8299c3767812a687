"""Change a finished directory: write a new version, then switch to it with the manifest.

``directories`` is for directories that are written once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import LOCK, DirectoryWriter, request_of, write_manifest
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import read_manifest


@contextmanager
def new_version(
    path: Path, kind: str, config: dict[str, Any], made_from: dict[str, Any]
) -> Iterator[DirectoryWriter]:
    """Let the block write all files of a finished directory again, in a numbered folder of it.

    Readers see the old version until the manifest is replaced atomically by one that lists the new
    folder's files. Then the older folders are removed. If the block fails, the new folder is
    removed and the old version remains; what a killed process left is removed first. The folder's
    number counts the versions, so that equal content has an equal fingerprint, killed or not.

    Args:
        path: the finished directory.
        kind: the kind that it must have.
        config: settings of the new version.
        made_from: name of each input of the new version -> its fingerprint.

    Yields:
        The writer; its path is the new folder.

    Raises:
        SchnRayError: ``path`` is not finished, or another process writes it now.
    """
    with locked(path / LOCK, path):
        number = int(_current(path, kind))
        _remove_other_folders(path, str(number))
        writer = DirectoryWriter(path / str(number + 1))
        with writing(writer.path):
            writer.path.mkdir()
        try:
            yield writer
            request = request_of(kind, config, made_from)
            write_manifest(path, request, writer, writer.path)
        except BaseException:
            shutil.rmtree(writer.path)
            raise
        _remove_other_folders(path, writer.path.name)


def remove_old_versions(path: Path, kind: str) -> None:
    """Remove what a process left that was killed while it made a new version, or after it.

    Args:
        path: the finished directory.
        kind: the kind that it must have.

    Raises:
        SchnRayError: ``path`` is not finished, or another process writes it now.
    """
    if len(list(path.iterdir())) > 2:  # the manifest, and the folder of its version
        with locked(path / LOCK, path):
            _remove_other_folders(path, _current(path, kind))


def _current(path: Path, kind: str) -> str:
    """Return the name of the folder that the manifest lists."""
    folders = {name.split("/")[0] for name in read_manifest(path, kind).files}
    if len(folders) != 1 or not (name := folders.pop()).isdecimal():
        raise SchnRayError(f"{path} is damaged: it has no versions; make the {kind} again")
    return name


def _remove_other_folders(path: Path, name: str) -> None:
    for folder in path.iterdir():
        if folder.is_dir() and folder.name != name:
            shutil.rmtree(folder)
