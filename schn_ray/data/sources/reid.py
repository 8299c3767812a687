"""Market-1501 and VeRi-776: identity and camera are in the files' names, the use in the folder's.

The identity is the one label. Identity 0 is a distractor: without a label, in the gallery. Identity
-1 is junk: without a label, and ranked for nobody.
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


def has_market1501(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has Market-1501's three."""
    return {"query", "bounding_box_test"} <= names


def has_veri776(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has VeRi-776's three."""
    return {"image_query", "image_test"} <= names


def market1501_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read names such as ``bounding_box_train/0002_c1s1_000451_03.jpg``."""
    return _items(place, _MARKET)


def veri776_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read names such as ``image_train/0002_c002_00030600_0.jpg``."""
    return _items(place, _VERI)


def _items(place: str, folders: dict[str, str]) -> Iterator[Item]:
    if missing := [folder for folder in folders if folder not in names_in(place)]:
        raise SchnRayError(f"{place}: no folder {missing[0]}; wanted {', '.join(folders)}")
    for folder, word in folders.items():
        names = sorted(n for n in names_in(join(place, folder)) if n.lower().endswith(".jpg"))
        for number, name in enumerate(names, 1):
            path = f"{folder}/{name}"
            yield Item(path, _entry(path, name, word)._replace(line=number, list=f"{place}/{path}"))


def _entry(path: str, name: str, word: str) -> Entry:
    found = _NAME.fullmatch(name)
    if not found:
        wanted = "wanted identity, camera and more, such as 0002_c1s1_000451_03.jpg"
        return Entry(path, (), 1, f"the name {name!r} is not of this data set; {wanted}")
    identity, camera = found["identity"], int(found["camera"])
    known = identity not in (_JUNK, _DISTRACTOR)
    use = JUNK if identity == _JUNK else word
    return Entry(path, (identity,) if known else (), 1, "", use, camera)
