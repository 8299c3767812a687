"""Market-1501 and VeRi-776: identity and camera are in the images' names.

The folder of an image is its split, and its identity is its only label. Identity 0 is a
distractor: unlabelled, in the gallery. Identity -1 is junk: unlabelled, and never ranked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.listing import GALLERY, JUNK, QUERY, TRAIN, Item

_MARKET = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
_VERI = {"image_train": TRAIN, "image_query": QUERY, "image_test": GALLERY}
_NAME = re.compile(r"(?P<identity>-1|[0-9]{4})_c(?P<camera>[0-9]{1,6})(s[0-9]+)?_.+\.jpg")
_DISTRACTOR, _JUNK = "0000", "-1"


def has_market1501(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has the folders of Market-1501.

    Args:
        location: the folder.
        names: the names in it.
    """
    return {"query", "bounding_box_test"} <= names


def has_veri776(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has the folders of VeRi-776.

    Args:
        location: the folder.
        names: the names in it.
    """
    return {"image_query", "image_test"} <= names


def market1501_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """List images with names such as ``bounding_box_train/0002_c1s1_000451_03.jpg``.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: a folder is missing.
    """
    return _items(location, _MARKET)


def veri776_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """List images with names such as ``image_train/0002_c002_00030600_0.jpg``.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: a folder is missing.
    """
    return _items(location, _VERI)


def _items(location: str, folders: dict[str, str]) -> Iterator[Item]:
    if missing := [folder for folder in folders if folder not in names_in(location)]:
        raise SchnRayError(f"{location}: no folder {missing[0]}; expected {', '.join(folders)}")
    for folder, split in folders.items():
        names = sorted(n for n in names_in(join(location, folder)) if n.lower().endswith(".jpg"))
        for number, name in enumerate(names, 1):
            path = f"{folder}/{name}"
            yield Item(
                path, _entry(path, name, split)._replace(line=number, list=f"{location}/{path}")
            )


def _entry(path: str, name: str, split: str) -> Entry:
    match = _NAME.fullmatch(name)
    if not match:
        expected = "expected identity, camera and more, such as 0002_c1s1_000451_03.jpg"
        return Entry(path, (), 1, f"the name {name!r} is not of this data set; {expected}")
    identity, camera = match["identity"], int(match["camera"])
    labelled = identity not in (_JUNK, _DISTRACTOR)
    image_split = JUNK if identity == _JUNK else split
    return Entry(path, (identity,) if labelled else (), 1, "", image_split, camera)
