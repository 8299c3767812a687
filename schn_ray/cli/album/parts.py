"""The directories of an album, and how verbs find them where they take an album.

ALBUM/album.json    what was requested of ``build``
ALBUM/store         of ``prepare``
ALBUM/features      of ``embed``; not with embeddings or a backbone that is trained
ALBUM/run           of ``train``
ALBUM/codes         of ``encode``
ALBUM/index         of ``index``
ALBUM/evaluation    of ``evaluate``
ALBUM/report.html   of ``report``
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

ALBUM, REPORT, LOCK = "album.json", "report.html", ".lock"
Part = Literal["store", "features", "run", "codes", "index", "evaluation"]


def is_album(location: Path | str) -> bool:
    """Tell whether a directory is an album, finished or not.

    Args:
        location: a path or a URI.
    """
    from schn_ray.core.storage.files import join, kind_at
    from schn_ray.models.hub import SCHEME, hub_address

    if str(location).startswith(SCHEME) and hub_address(str(location)) is not None:
        return False  # a model
    return kind_at(join(str(location), ALBUM)) == "file"


def has_part(location: str, part: Part) -> bool:
    """Tell whether a location is an album that has a finished directory.

    Args:
        location: a path or a URI.
        part: which directory.
    """
    from schn_ray.core.manifest import MANIFEST
    from schn_ray.core.storage.files import join, kind_at

    return is_album(location) and kind_at(join(location, f"{part}/{MANIFEST}")) == "file"


def part_of(location: str, part: Part) -> str:
    """Return a finished directory of an album; a location of anything else as it is.

    Args:
        location: a path or a URI.
        part: which directory.

    Raises:
        SchnRayError: the album has no such directory yet.
    """
    from schn_ray.core.errors import SchnRayError
    from schn_ray.core.storage.files import join

    if not is_album(location):
        return location
    if not has_part(location, part):
        raise SchnRayError(
            f"the album {location} has no finished {part} yet: run schn-ray build again"
        )
    return join(location, part)


def store_of_labels(location: str, labels: str | None) -> str | None:
    """Return the store with the labels: the one that was named, or the album's own if it has any.

    Args:
        location: of codes or an index, or of an album.
        labels: as the user named it: a store or an album.

    Raises:
        SchnRayError: the album that was named has no store yet.
    """
    if labels is not None:
        return part_of(labels, "store")
    if not has_part(location, "store"):
        return None
    from schn_ray.core.storage.cache import manifest_at

    store = part_of(location, "store")
    return store if manifest_at(store, "store").counts["classes"] else None


def model_of(location: str, model: Path | str | None) -> Path | str | None:
    """Return the model that was named, or the album's own.

    Args:
        location: of an index, or of an album.
        model: as the user named it.

    Raises:
        SchnRayError: the album has no model yet.
    """
    return part_of(location, "run") if model is None and is_album(location) else model
