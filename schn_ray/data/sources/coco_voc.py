"""MS-COCO and Pascal VOC: an image's labels are the categories of the objects in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.flickr import first_below
from schn_ray.data.sources.listing import QUERY, TRAIN, Item, read_lines, read_text, split_word

_INSTANCES = re.compile(r"instances_(?P<part>.+)\.json")
_VOC_FOLDERS = ("", "VOC2012", "VOCdevkit/VOC2012")


# --- MS-COCO: annotations/instances_<part>.json, <part>/<file_name>


def has_coco(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has instances_*.json."""
    return bool(_instances(place))


def coco_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read instances_*.json; categories go by their names, as their ids have gaps.

    Raises:
        SchnRayError: not JSON, a field missing, or an annotation of an unknown image or category.
    """
    files = _instances(place)
    if not files:
        raise SchnRayError(f"{place}: wanted annotations/instances_<part>.json, as COCO has them")
    for folder, name, part in files:
        file = join(place, f"{folder}/{name}" if folder else name)
        values = _parsed(file)
        images = first_below(place, part, f"images/{part}", "images") or ""
        try:
            yield from _coco_rows(file, values, images, split_word(part))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SchnRayError(f"{file}: not COCO's layout: {_missing(error)}") from error


def _coco_rows(file: str, values: dict[str, Any], folder: str, word: str | None) -> Iterator[Item]:
    names = {category["id"]: str(category["name"]) for category in values["categories"]}
    of_image: dict[int, list[str]] = {image["id"]: [] for image in values["images"]}
    for place, annotation in enumerate(values["annotations"]):
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in of_image or category not in names:
            what = f"image_id {image}" if image not in of_image else f"category_id {category}"
            raise SchnRayError(f"{file}: annotations[{place}] has {what}, which is not listed")
        of_image[image].append(names[category])
    for place, image in enumerate(values["images"]):
        path, labels = str(image["file_name"]), tuple(dict.fromkeys(of_image[image["id"]]))
        entry = Entry(path, labels, place + 1, "", word, -1, file)
        yield Item(f"{folder}/{path}" if folder else path, entry)


def _instances(place: str) -> list[tuple[str, str, str]]:
    return [
        (folder, name, found["part"])
        for folder in ("annotations", "")
        for name in sorted(names_in(join(place, folder) if folder else place))
        if (found := _INSTANCES.fullmatch(name))
    ]


def _parsed(file: str) -> dict[str, Any]:
    try:
        values = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise SchnRayError(f"{file}:{line}: not JSON: {error}; get it again") from error
    if not isinstance(values, dict):
        raise SchnRayError(f"{file}: holds a {type(values).__name__}; wanted COCO's object")
    return values


def _missing(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)


# --- Pascal VOC: JPEGImages/, ImageSets/Main/{train,val,<class>_trainval}.txt


def has_voc(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has VOC's images and its lists."""
    return _voc_root(place) is not None


def voc_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read the lists of the classification task; -1 is absent, 0 hard to see: neither is a label.

    Raises:
        SchnRayError: a list missing, a line that is not VOC's, or an image that is not listed.
    """
    root = _voc_root(place)
    if root is None:
        raise SchnRayError(f"{place}: wanted VOC's JPEGImages and ImageSets/Main")
    lists = f"{root}ImageSets/Main"
    names = names_in(join(place, lists))
    if not {"train.txt", "val.txt"} <= names:
        raise SchnRayError(f"{place}/{lists}: wanted train.txt and val.txt")
    found: dict[str, Entry] = {}
    for name, word in (("train.txt", TRAIN), ("val.txt", QUERY)):
        file = join(place, f"{lists}/{name}")
        for line, image in enumerate(map(str.strip, read_lines(file)), 1):
            found[image] = Entry(image, (), line, "" if image else "no id", word, -1, file)
    labels: dict[str, list[str]] = {image: [] for image in found}
    for name in sorted(names):
        category, _, ending = name.rpartition("_")
        if category and ending == "trainval.txt":
            for image in _voc_positives(join(place, f"{lists}/{name}"), labels):
                labels[image].append(category)
    for image, entry in found.items():
        yield Item(f"{root}JPEGImages/{image}.jpg", entry._replace(labels=tuple(labels[image])))


def _voc_root(place: str) -> str | None:
    for folder in _VOC_FOLDERS:
        below = f"{folder}/" if folder else ""
        if {"JPEGImages", "ImageSets"} <= names_in(join(place, folder) if folder else place):
            return below
    return None


def _voc_positives(file: str, known: dict[str, list[str]]) -> Iterator[str]:
    for line, text in enumerate(read_lines(file), 1):
        fields = text.split()
        if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
            raise SchnRayError(f"{file}:{line}: wanted 'image 1', 0 or -1, got {text[:60]!r}")
        if fields[0] not in known:
            raise SchnRayError(f"{file}:{line}: {fields[0]} is in neither train.txt nor val.txt")
        if fields[1] == "1":
            yield fields[0]
