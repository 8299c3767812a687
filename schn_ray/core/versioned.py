"""Change a finished directory: write a new version, then switch to it with the manifest.

``directories`` is for directories that are written once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schn_ray.core.directories import LOCK, DirectoryWriter, request_of, write_manifest
from schn_ray.core.locks import locked
from schn_ray.core.manifest import read_manifest


@contextmanager
def new_version(
    path: Path, kind: str, config: dict[str, Any], made_from: dict[str, Any]
) -> Iterator[DirectoryWriter]:
    """Let the block write all files of a finished directory again, in a numbered folder of it.

    Readers see the old version until the manifest is replaced atomically by one that lists the new
    folder's files. Then the older folders are removed. If the block fails, the new folder is
    removed and the old version remains.

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
        read_manifest(path, kind)
        folders = [entry for entry in path.iterdir() if entry.is_dir()]
        number = 1 + max((int(f.name) for f in folders if f.name.isdecimal()), default=0)
        writer = DirectoryWriter(path / str(number))
        writer.path.mkdir()
        try:
            yield writer
            request = request_of(kind, config, made_from)
            write_manifest(path, request, writer, writer.path)
        except BaseException:
            shutil.rmtree(writer.path)
            raise
        for folder in folders:
            shutil.rmtree(folder)
