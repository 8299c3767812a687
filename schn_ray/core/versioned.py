"""Finished directories that change: a new version beside the old, and one manifest that says which.

``manifest`` has those that are written once.
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
    """Write the files of a finished directory anew, in a folder of their own: 1, 2, 3 ...

    Readers see the old version until the manifest is replaced, at once, by one that lists the new
    folder's files only; then what is old goes. If the block fails, the old version stays.

    Raises:
        SchnRayError: ``path`` is not finished, or another process writes it now.
    """
    with locked(path / LOCK, path):
        read_manifest(path, kind)
        folders = [entry for entry in path.iterdir() if entry.is_dir()]
        number = 1 + max((int(f.name) for f in folders if f.name.isdecimal()), default=0)
        draft = DirectoryWriter(path / str(number))
        draft.path.mkdir()
        try:
            yield draft
            request = request_of(kind, config, made_from)
            write_manifest(path, request, draft, draft.path)
        except BaseException:
            shutil.rmtree(draft.path)
            raise
        for folder in folders:
            shutil.rmtree(folder)
