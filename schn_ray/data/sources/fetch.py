"""Reads one image by the URI that its row has.

The URI of an image in a file of its own is that file's path or URI. Other sources number the
images in a file or store: ``path#row``, or ``path#row:column`` for a table whose image column is
not called ``image``.
"""

from __future__ import annotations

import re
from pathlib import Path

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import is_uri, kind_at, read_file
from schn_ray.data.sources.arrow import SUFFIXES, arrow_image
from schn_ray.data.sources.cifar import BATCHES, cifar_image
from schn_ray.data.sources.digits import LOCATION, digit
from schn_ray.data.sources.npy import SUFFIX
from schn_ray.data.sources.parquet import parquet_image
from schn_ray.data.sources.stored import is_store, stored_image
from schn_ray.data.sources.webdataset import tar_image

_ROW_URI = re.compile(r"(?P<path>.+)#(?P<row>[0-9]+)(:(?P<column>.+))?", re.DOTALL)


def fetch(uri: str) -> bytes:
    """Return the encoded image at a row's URI.

    Args:
        uri: as in ``Row.uri``: a file, or a row of a file or store.

    Raises:
        SchnRayError: the image does not exist (any more).

    >>> fetch("digits#0")[1:4]
    b'PNG'
    """
    try:
        match = _ROW_URI.fullmatch(uri)
        if match and _is_row(uri, match["path"]):
            return _fetch_row(match["path"], int(match["row"]), match["column"] or "image")
        return read_file(uri)
    except (OSError, IndexError) as error:
        raise SchnRayError(
            f"the image {uri} is not there any more ({error}); was its source moved or changed? "
            "schn-ray encode --update with that source gives rows their addresses of now"
        ) from error


def _is_row(uri: str, path: str) -> bool:
    """Tell a row of a file from a file whose own name ends with ``#`` and a number."""
    if is_uri(uri):
        return path.endswith((".parquet", ".tar", *SUFFIXES)) or is_store(path)
    return not Path(uri).is_file()


def _fetch_row(path: str, row: int, column: str) -> bytes:
    if path == LOCATION:
        return digit(row)
    if kind_at(path) is None:
        raise FileNotFoundError(f"no {path}")
    if path.endswith(SUFFIX):
        raise SchnRayError(f"{path}: row {row} is a vector and has no image")
    if path.endswith(".tar"):
        return tar_image(path, row)
    if path.endswith(SUFFIXES):
        return arrow_image(path, row, column)
    if not path.endswith(".parquet") and kind_at(path) == "folder":
        return stored_image(path, row)
    if Path(path).name in BATCHES:
        return cifar_image(Path(path), row)
    return parquet_image(path, row, column)
