"""All kinds of sources, and how the kind of a folder or file is recognised."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import absolute, is_uri, kind_at, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import (
    Source,
)
from schn_ray.data.sources import coco_voc as objects
from schn_ray.data.sources import flickr, lists, metadata
from schn_ray.data.sources import reid as identities
from schn_ray.data.sources.arrow import ArrowSource, has_arrow
from schn_ray.data.sources.cifar import (
    CIFAR10,
    CIFAR100,
    COARSE,
    CifarSource,
    Layout,
    find_batches,
)
from schn_ray.data.sources.class_names import with_class_names
from schn_ray.data.sources.digits import LOCATION, DigitsSource
from schn_ray.data.sources.folder import FolderSource
from schn_ray.data.sources.listing import ListingSource, ReadListing, folder_of
from schn_ray.data.sources.parquet import ParquetSource
from schn_ray.data.sources.stored import StoreSource, has_store
from schn_ray.data.sources.webdataset import WebDataset, has_tars


def open_source(location: str, config: SourceConfig) -> Source:
    """Open what a user has; nothing is listed or read yet.

    Args:
        location: ``digits``, or the path or URI of a folder or file.
        config: its ``kind``, or ``auto`` to go by what lies there.

    Raises:
        SchnRayError: nothing there, or nothing that we know.
    """
    if location == LOCATION or config.kind == "digits":
        return DigitsSource(config.shard_rows)
    place = absolute(location)
    what = kind_at(place)
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
    return with_class_names(source, absolute(config.class_names)) if config.class_names else source


def _cifar(place: str, config: SourceConfig, layout: Layout, kind: str) -> Source:
    found = find_batches(Path(place), layout)
    if found is None:
        raise SchnRayError(f"{place}: no {kind} batches in there ({layout.meta} is missing)")
    coarse = layout is CIFAR100 and config.label_column.startswith("coarse")
    return CifarSource(str(found), config.shard_rows, COARSE if coarse else layout, kind)


def _folder(place: str, config: SourceConfig) -> Source:
    if kind_at(place) == "file":
        raise SchnRayError(f"{place} is a file; wanted a folder of images")
    return FolderSource(place, config.shard_rows)


def _listed(kind: str, items: ReadListing) -> Callable[[str, SourceConfig], Source]:
    return lambda place, config: ListingSource(place, config, kind, items, folder_of(place))


def _has_cifar(place: str, names: frozenset[str], layout: Layout) -> bool:
    return not is_uri(place) and find_batches(Path(place), layout) is not None


# a new data set is a function that lists it, one that knows it when it sees it, and two lines here
_OPENERS: dict[str, Callable[[str, SourceConfig], Source]] = {
    "digits": lambda _, config: DigitsSource(config.shard_rows),
    "folder": _folder,
    "list": _listed("list", lists.text_items),
    "lists": _listed("lists", lists.split_list_items),
    "paired": _listed("paired", lists.paired_items),
    "csv": _listed("csv", lists.csv_items),
    "metadata": _listed("metadata", metadata.metadata_items),
    "parquet": ParquetSource,
    "arrow": ArrowSource,
    "webdataset": WebDataset,
    "cifar10": lambda place, config: _cifar(place, config, CIFAR10, "cifar10"),
    "cifar100": lambda place, config: _cifar(place, config, CIFAR100, "cifar100"),
    "nuswide": _listed("nuswide", flickr.nuswide_items),
    "mirflickr": _listed("mirflickr", flickr.mirflickr_items),
    "coco": _listed("coco", objects.coco_items),
    "voc": _listed("voc", objects.voc_items),
    "market1501": _listed("market1501", identities.market1501_items),
    "veri776": _listed("veri776", identities.veri776_items),
    "store": lambda place, config: StoreSource(place, config.shard_rows),
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
