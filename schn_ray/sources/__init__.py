"""What users have, read as canonical rows, in shards that are small enough to share out.

Rows are not decoded here and may repeat an id: whoever writes or checks them finds that out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from schn_ray.config import SourceConfig
from schn_ray.errors import SchnRayError
from schn_ray.sources.cifar import BATCHES, Cifar10, cifar_image, find_batches
from schn_ray.sources.digits import LOCATION, Digits, digit
from schn_ray.sources.folder import Folder
from schn_ray.sources.listed import Listed
from schn_ray.sources.parquet import Parquet, parquet_image
from schn_ray.sources.places import absolute, files_below, is_there, is_uri, read_file
from schn_ray.sources.rows import (
    BadRow,
    Row,
    Shard,
    Source,
    Unit,
    cut,
    listing_sha256,
    shard_of,
    units_of,
)
from schn_ray.sources.stored import ROW_FILES, Stored, stored_image

__all__ = [
    "BadRow",
    "Row",
    "Shard",
    "Source",
    "Unit",
    "cut",
    "fetch",
    "listing_sha256",
    "open_source",
    "shard_of",
    "units_of",
]

_ROW_URI = re.compile(r"(?P<path>.+)#(?P<row>[0-9]+)(:(?P<column>.+))?", re.DOTALL)


def open_source(location: str, config: SourceConfig) -> Source:
    """Open what a user has; nothing is listed or read yet.

    Args:
        location: ``digits``, or the path or URI of a folder or file.
        config: its ``kind``, or ``auto`` to go by what lies there.

    Raises:
        SchnRayError: nothing there, or nothing that we know.
    """
    if location == LOCATION or config.kind == "digits":
        return Digits(config.shard_rows)
    place = absolute(location)
    what = is_there(place)
    if what is None:
        raise SchnRayError(
            f"{location}: no such file or folder; wanted a folder of images, a list (.txt, .csv), "
            "a Parquet file, CIFAR-10's batches, a store, or the word 'digits'"
        )
    if config.root is not None:
        config = config.model_copy(update={"root": absolute(config.root)})
    kind = _guess(place, what) if config.kind == "auto" else config.kind
    if kind in _LOCAL and is_uri(place):
        raise SchnRayError(f"{location}: a {kind} source has to be local; copy it first")
    return _OPENERS[kind](place, config)


def fetch(uri: str) -> bytes:
    """Return the encoded image behind a row's uri.

    Raises:
        SchnRayError: it is not there any more, or not an address of ours.
    """
    try:
        if (row_uri := _ROW_URI.fullmatch(uri)) and _is_row(uri, row_uri["path"]):
            return _fetch_row(row_uri["path"], int(row_uri["row"]), row_uri["column"] or "image")
        return read_file(uri)
    except (OSError, IndexError) as error:
        raise SchnRayError(
            f"the image {uri} is not there any more ({error}); was its source moved or changed?"
        ) from error


def _is_row(uri: str, path: str) -> bool:
    return path.endswith(".parquet") if is_uri(uri) else not Path(uri).is_file()


def _fetch_row(path: str, row: int, column: str) -> bytes:
    if path == LOCATION:
        return digit(row)
    if Path(path).is_dir():
        return stored_image(path, row)
    if Path(path).name in BATCHES:
        return cifar_image(Path(path), row)
    return parquet_image(path, row, column)


def _cifar10(place: str, config: SourceConfig) -> Source:
    found = find_batches(Path(place))
    if found is None:
        raise SchnRayError(f"{place}: no CIFAR-10 batches in there (batches.meta is missing)")
    return Cifar10(str(found), config.shard_rows)


def _folder(place: str, config: SourceConfig) -> Source:
    if is_there(place) == "file":
        raise SchnRayError(f"{place} is a file; wanted a folder of images")
    return Folder(place, config.shard_rows)


_OPENERS: dict[str, Callable[[str, SourceConfig], Source]] = {
    "digits": lambda _, config: Digits(config.shard_rows),
    "folder": _folder,
    "list": Listed,
    "csv": lambda place, config: Listed(place, config, "csv"),
    "parquet": Parquet,
    "cifar10": _cifar10,
    "store": lambda place, config: Stored(place, config.shard_rows),
}
_LOCAL = ("cifar10", "store")
_SUFFIXES = {".txt": "list", ".csv": "csv", ".parquet": "parquet"}


def _guess(place: str, what: str) -> str:
    if what == "file":
        kind = _SUFFIXES.get(PurePosixPath(place).suffix.lower())
        if kind is None:
            raise SchnRayError(
                f"{place}: cannot tell what this file is; wanted a folder, a file "
                f"{', '.join(_SUFFIXES)}, or 'digits'. Say it with --set source.kind=... (one of "
                f"{', '.join(_OPENERS)})"
            )
        return kind
    if is_uri(place):
        below = (name for name, _, _ in files_below(place) if "/" not in name)
        return "parquet" if any(name.endswith(".parquet") for name in below) else "folder"
    path = Path(place)
    if any(path.glob(ROW_FILES)):
        return "store"
    if any(path.glob("*.parquet")):
        return "parquet"
    return "cifar10" if find_batches(path) else "folder"
