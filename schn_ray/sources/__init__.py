"""What users have, read as canonical rows, in shards that are small enough to share out.

Rows are not decoded here and may repeat an id: whoever writes or checks them finds that out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from schn_ray.config import SourceConfig
from schn_ray.errors import SchnRayError
from schn_ray.places.files import absolute, is_there, is_uri, names_in, read_file
from schn_ray.sources import flickr, identities, lists, metadata, objects
from schn_ray.sources.arrow import SUFFIXES, Arrow, arrow_image, has_arrow
from schn_ray.sources.cifar import (
    BATCHES,
    CIFAR10,
    CIFAR100,
    COARSE,
    Cifar,
    Layout,
    cifar_image,
    find_batches,
)
from schn_ray.sources.digits import LOCATION, Digits, digit
from schn_ray.sources.folder import Folder
from schn_ray.sources.listed import Listed, ReadListing, folder_of
from schn_ray.sources.named import named
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
from schn_ray.sources.stored import Stored, has_store, is_store, stored_image
from schn_ray.sources.tars import Tars, has_tars, tar_image

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
            "a Parquet file, a data set in its makers' layout, a store, or the word 'digits'"
        )
    if config.root is not None:
        config = config.model_copy(update={"root": absolute(config.root)})
    kind = _guess(place, what) if config.kind == "auto" else config.kind
    if kind in _LOCAL and is_uri(place):
        raise SchnRayError(f"{location}: a {kind} source has to be local; copy it first")
    source = _OPENERS[kind](place, config)
    return named(source, absolute(config.class_names)) if config.class_names else source


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
    if is_uri(uri):
        return path.endswith((".parquet", ".tar", *SUFFIXES)) or is_store(path)
    return not Path(uri).is_file()


def _fetch_row(path: str, row: int, column: str) -> bytes:
    if path == LOCATION:
        return digit(row)
    if path.endswith(".tar"):
        return tar_image(path, row)
    if path.endswith(SUFFIXES):
        return arrow_image(path, row, column)
    if not path.endswith(".parquet") and is_there(path) == "folder":
        return stored_image(path, row)
    if Path(path).name in BATCHES:
        return cifar_image(Path(path), row)
    return parquet_image(path, row, column)


def _cifar(place: str, config: SourceConfig, layout: Layout, kind: str) -> Source:
    found = find_batches(Path(place), layout)
    if found is None:
        raise SchnRayError(f"{place}: no {kind} batches in there ({layout.meta} is missing)")
    coarse = layout is CIFAR100 and config.label_column.startswith("coarse")
    return Cifar(str(found), config.shard_rows, COARSE if coarse else layout, kind)


def _folder(place: str, config: SourceConfig) -> Source:
    if is_there(place) == "file":
        raise SchnRayError(f"{place} is a file; wanted a folder of images")
    return Folder(place, config.shard_rows)


def _listed(kind: str, items: ReadListing) -> Callable[[str, SourceConfig], Source]:
    return lambda place, config: Listed(place, config, kind, items, folder_of(place))


def _has_cifar(place: str, names: frozenset[str], layout: Layout) -> bool:
    return not is_uri(place) and find_batches(Path(place), layout) is not None


# a new data set is a function that lists it, one that knows it when it sees it, and two lines here
_OPENERS: dict[str, Callable[[str, SourceConfig], Source]] = {
    "digits": lambda _, config: Digits(config.shard_rows),
    "folder": _folder,
    "list": _listed("list", lists.text_items),
    "lists": _listed("lists", lists.split_list_items),
    "paired": _listed("paired", lists.paired_items),
    "csv": _listed("csv", lists.csv_items),
    "metadata": _listed("metadata", metadata.metadata_items),
    "parquet": Parquet,
    "arrow": Arrow,
    "webdataset": Tars,
    "cifar10": lambda place, config: _cifar(place, config, CIFAR10, "cifar10"),
    "cifar100": lambda place, config: _cifar(place, config, CIFAR100, "cifar100"),
    "nuswide": _listed("nuswide", flickr.nuswide_items),
    "mirflickr": _listed("mirflickr", flickr.mirflickr_items),
    "coco": _listed("coco", objects.coco_items),
    "voc": _listed("voc", objects.voc_items),
    "market1501": _listed("market1501", identities.market1501_items),
    "veri776": _listed("veri776", identities.veri776_items),
    "store": lambda place, config: Stored(place, config.shard_rows),
}
_KNOWN_BY: dict[str, Callable[[str, frozenset[str]], bool]] = {
    "cifar10": functools.partial(_has_cifar, layout=CIFAR10),
    "cifar100": functools.partial(_has_cifar, layout=CIFAR100),
    "nuswide": flickr.has_nuswide,
    "mirflickr": flickr.has_mirflickr,
    "coco": objects.has_coco,
    "voc": objects.has_voc,
    "market1501": identities.has_market1501,
    "veri776": identities.has_veri776,
    "metadata": metadata.has_metadata,
    "paired": lists.has_paired_lists,
    "lists": lists.has_split_lists,
    "webdataset": has_tars,
    "arrow": has_arrow,
    "parquet": lambda _, names: any(name.endswith(".parquet") for name in names),
}
_LOCAL = ("cifar10", "cifar100")
_SUFFIXES = {
    ".txt": "list",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".tar": "webdataset",
}


def _guess(place: str, what: str) -> str:
    if what == "file":
        kind = _SUFFIXES.get(PurePosixPath(place).suffix.lower())
        if kind is None:
            raise SchnRayError(
                f"{place}: cannot tell what this file is; wanted a folder, a file "
                f"{', '.join(_SUFFIXES)}, or 'digits'. Say it with --set source.kind=... (one of "
                f"{', '.join(_OPENERS)})"
            )
        return "paired" if place.endswith("_img.txt") else kind
    names = names_in(place)
    if has_store(place, names):
        return "store"
    kinds = [kind for kind, knows in _KNOWN_BY.items() if knows(place, names)]
    if len(kinds) > 1:
        raise SchnRayError(
            f"{place} looks like {' and like '.join(kinds)}; say which with --set "
            f"source.kind={kinds[0]}"
        )
    return kinds[0] if kinds else "folder"
