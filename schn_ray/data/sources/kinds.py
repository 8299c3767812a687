"""The registry of sources: each kind, how it is opened, and how ``auto`` recognises it.

To add a kind of source:

1. Write one file in this directory. Where every image is a file of its own, all that it needs is a
   function that lists them (``ReadListing`` in ``listing.py``). Otherwise write a class with
   ``shards`` and ``read``, as ``Source`` in ``data/shards/rows.py`` describes.
2. Add a line to ``KINDS`` below.
3. Add its name to ``SourceConfig.kind`` in ``data/config.py``.

A source that keeps many images in one file also needs a line in ``fetch.py``, which reads one
image by its URI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import REQUEST
from schn_ray.core.storage.files import absolute, is_uri, kind_at, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Source
from schn_ray.data.sources import coco_voc, flickr, lists, metadata, reid
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
from schn_ray.data.sources.npy import NpySource, has_npy
from schn_ray.data.sources.parquet import ParquetSource, has_parquet
from schn_ray.data.sources.saved_datasets import SavedDataset, has_dataset
from schn_ray.data.sources.stored import StoreSource, has_store
from schn_ray.data.sources.webdataset import WebDataset, has_tars

Open = Callable[[str, SourceConfig], Source]
"""Opens the source at a location: an absolute path or a URI."""

Recognise = Callable[[str, frozenset[str]], bool]
"""Tells from a folder's location, and the names in it, whether it has this kind."""


class SourceKind(NamedTuple):
    """A kind of source.

    Attributes:
        open: opens it.
        recognise: recognises a folder of this kind; None: never guessed from a folder.
        suffixes: files with these endings are of this kind.
        local: whether it can only be read from a local path.
    """

    open: Open
    recognise: Recognise | None = None
    suffixes: tuple[str, ...] = ()
    local: bool = False


def open_source(location: str, config: SourceConfig) -> Source:
    """Open a source of images or vectors; nothing is listed or read yet.

    Args:
        location: ``digits``, or the path or URI of a folder or file.
        config: how to read it. With the kind ``auto``, the files decide.

    Raises:
        SchnRayError: nothing exists at the location, its kind is unknown or ambiguous, or it is a
            URI and its kind can only be read from a local path.

    >>> source = open_source("digits", SourceConfig())
    >>> sum(shard.rows for shard in source.shards())
    1797
    """
    if location == LOCATION or config.kind == "digits":
        return DigitsSource(config.shard_rows)
    full_location = absolute(location)
    file_or_folder = kind_at(full_location)
    if file_or_folder is None:
        raise SchnRayError(
            f"{location}: no such file or folder; expected a folder of images, a list (.txt, "
            ".csv), a Parquet or .npy file, a published data set, a store, or the word 'digits'"
        )
    if config.root is not None:
        config = config.model_copy(update={"root": absolute(config.root)})
    kind = _guess(full_location, file_or_folder) if config.kind == "auto" else config.kind
    if KINDS[kind].local and is_uri(full_location):
        raise SchnRayError(f"{location}: a {kind} source has to be local; copy it first")
    source = KINDS[kind].open(full_location, config)
    return with_class_names(source, absolute(config.class_names)) if config.class_names else source


def is_gone(location: str) -> bool:
    """Tell whether nothing exists at the location of a source.

    Args:
        location: see ``open_source``.
    """
    return location != LOCATION and kind_at(absolute(location)) is None


def _guess(location: str, file_or_folder: str) -> str:
    if file_or_folder == "file":
        return _kind_of_file(location)
    names = names_in(location)
    if has_store(location, names):  # a store has Arrow files, but is not a source of kind arrow
        return "store"
    matches = [name for name, k in KINDS.items() if k.recognise and k.recognise(location, names)]
    if len(matches) > 1:
        raise SchnRayError(
            f"{location} looks like {' and like '.join(matches)}; choose one with --set "
            f"source.kind={matches[0]}"
        )
    if not matches and REQUEST in names:
        raise SchnRayError(f"{location} is unfinished: run the command that made it again")
    return matches[0] if matches else "folder"


def _kind_of_file(location: str) -> str:
    if location.endswith("_img.txt"):
        return "paired"
    by_suffix = {suffix: name for name, kind in KINDS.items() for suffix in kind.suffixes}
    suffix = PurePosixPath(location).suffix.lower()
    if suffix not in by_suffix:
        raise SchnRayError(
            f"{location}: cannot tell what this file is; expected a folder, a file "
            f"{', '.join(by_suffix)}, or 'digits'. Name its kind with --set source.kind=... (one "
            f"of {', '.join(KINDS)})"
        )
    return by_suffix[suffix]


def _open_digits(_: str, config: SourceConfig) -> Source:
    return DigitsSource(config.shard_rows)


def _open_folder(location: str, config: SourceConfig) -> Source:
    if kind_at(location) == "file":
        raise SchnRayError(f"{location} is a file; expected a folder of images")
    return FolderSource(location, config.shard_rows)


def _open_store(location: str, config: SourceConfig) -> Source:
    return StoreSource(location, config.shard_rows)


def _open_cifar(location: str, config: SourceConfig, layout: Layout, kind: str) -> Source:
    batches = find_batches(Path(location), layout)
    if batches is None:
        raise SchnRayError(f"{location}: no {kind} batches ({layout.meta} is missing)")
    coarse = layout is CIFAR100 and config.label_column.startswith("coarse")
    return CifarSource(str(batches), config.shard_rows, COARSE if coarse else layout, kind)


def _has_cifar(location: str, _: frozenset[str], layout: Layout) -> bool:
    return not is_uri(location) and find_batches(Path(location), layout) is not None


def _cifar(kind: str, layout: Layout) -> SourceKind:
    return SourceKind(
        functools.partial(_open_cifar, layout=layout, kind=kind),
        functools.partial(_has_cifar, layout=layout),
        local=True,
    )


def _has_only_arrow(location: str, names: frozenset[str]) -> bool:
    return has_arrow(location, names) and not has_dataset(location, names)


def _listing(
    kind: str,
    read_items: ReadListing,
    recognise: Recognise | None = None,
    suffixes: tuple[str, ...] = (),
) -> SourceKind:
    """Return a kind whose images are files that something lists."""

    def open_listing(location: str, config: SourceConfig) -> Source:
        return ListingSource(location, config, kind, read_items, folder_of(location))

    return SourceKind(open_listing, recognise, suffixes)


KINDS: dict[str, SourceKind] = {
    "digits": SourceKind(_open_digits),
    "folder": SourceKind(_open_folder),
    "list": _listing("list", lists.text_items, suffixes=(".txt",)),
    "csv": _listing("csv", lists.csv_items, suffixes=(".csv", ".tsv")),
    "cifar10": _cifar("cifar10", CIFAR10),
    "cifar100": _cifar("cifar100", CIFAR100),
    "nuswide": _listing("nuswide", flickr.nuswide_items, flickr.has_nuswide),
    "mirflickr": _listing("mirflickr", flickr.mirflickr_items, flickr.has_mirflickr),
    "coco": _listing("coco", coco_voc.coco_items, coco_voc.has_coco),
    "voc": _listing("voc", coco_voc.voc_items, coco_voc.has_voc),
    "market1501": _listing("market1501", reid.market1501_items, reid.has_market1501),
    "veri776": _listing("veri776", reid.veri776_items, reid.has_veri776),
    "metadata": _listing("metadata", metadata.metadata_items, metadata.has_metadata),
    "paired": _listing("paired", lists.paired_items, lists.has_paired_lists),
    "lists": _listing("lists", lists.split_list_items, lists.has_split_lists),
    "webdataset": SourceKind(WebDataset, has_tars, suffixes=(".tar",)),
    "datasets": SourceKind(SavedDataset, has_dataset),
    "npy": SourceKind(NpySource, has_npy, suffixes=(".npy",), local=True),
    "arrow": SourceKind(ArrowSource, _has_only_arrow, suffixes=(".arrow", ".feather")),
    "parquet": SourceKind(ParquetSource, has_parquet, suffixes=(".parquet",)),
    "store": SourceKind(_open_store),
}
"""Every kind of source by its name. A folder that several recognise is refused, in this order."""
