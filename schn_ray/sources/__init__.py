"""What users have, read as canonical rows, in shards that are small enough to share out.

Rows are not decoded here and may repeat an id: whoever writes or checks them finds that out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from schn_ray.config import SourceConfig
from schn_ray.errors import SchnRayError
from schn_ray.sources.cifar import BATCHES, Cifar10, cifar_image, find_batches
from schn_ray.sources.digits import LOCATION, Digits, digit
from schn_ray.sources.folder import Folder, read_file
from schn_ray.sources.parquet import Parquet, parquet_image
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
        location: ``digits``, or the path of a folder or file.
        config: its ``kind``, or ``auto`` to go by what lies there.

    Raises:
        SchnRayError: nothing there, or nothing that we know.
    """
    kind = _guess(location) if config.kind == "auto" else config.kind
    if kind != "digits" and not Path(location).exists():
        raise SchnRayError(
            f"{location}: no such file or folder; wanted a folder of images, a Parquet file, "
            "CIFAR-10's batches, a store, or the word 'digits'"
        )
    return _OPENERS[kind](Path(location).absolute(), config)


def fetch(uri: str) -> bytes:
    """Return the encoded image behind a row's uri.

    Raises:
        SchnRayError: it is not there any more, or not an address of ours.
    """
    try:
        if (row_uri := _ROW_URI.fullmatch(uri)) and not Path(uri).is_file():
            return _fetch_row(row_uri["path"], int(row_uri["row"]), row_uri["column"] or "image")
        return read_file(uri)
    except (OSError, IndexError) as error:
        raise SchnRayError(
            f"the image {uri} is not there any more ({error}); was its source moved or changed?"
        ) from error


def _fetch_row(path: str, row: int, column: str) -> bytes:
    if path == LOCATION:
        return digit(row)
    if Path(path).is_dir():
        return stored_image(path, row)
    if Path(path).name in BATCHES:
        return cifar_image(Path(path), row)
    return parquet_image(path, row, column)


def _cifar10(path: Path, config: SourceConfig) -> Source:
    found = find_batches(path)
    if found is None:
        raise SchnRayError(f"{path}: no CIFAR-10 batches in there (batches.meta is missing)")
    return Cifar10(str(found), config.shard_rows)


def _folder(path: Path, config: SourceConfig) -> Source:
    if not path.is_dir():
        raise SchnRayError(f"{path} is a file; wanted a folder of images")
    return Folder(str(path), config.shard_rows)


_OPENERS: dict[str, Callable[[Path, SourceConfig], Source]] = {
    "digits": lambda _, config: Digits(config.shard_rows),
    "folder": _folder,
    "parquet": lambda path, config: Parquet(str(path), config),
    "cifar10": _cifar10,
    "store": lambda path, config: Stored(str(path), config.shard_rows),
}


def _guess(location: str) -> str:
    path = Path(location)
    if location == LOCATION:
        return "digits"
    if path.is_file() and path.suffix.lower() != ".parquet":
        raise SchnRayError(
            f"{location}: cannot tell what this file is; wanted a folder, a .parquet file or "
            f"'digits'. Say it with --set source.kind=... (one of {', '.join(_OPENERS)})"
        )
    if any(path.glob(ROW_FILES)):
        return "store"
    if path.is_file() or any(path.glob("*.parquet")):
        return "parquet"
    return "cifar10" if find_batches(path) else "folder"
