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
from schn_ray.data.sources.listing import QUERY, TRAIN, Item, read_lines, split_word, text_lines

_INSTANCES = re.compile(r"instances_(?P<part>.+)\.json")
_VOC_FOLDERS = ("", "VOC2012", "VOCdevkit/VOC2012")


# --- MS-COCO: annotations/instances_<part>.json, <part>/<file_name>


def has_coco(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has ``instances_*.json``.

    Args:
        location: the folder.
        names: the names in it.
    """
    return bool(_instances(location))


def coco_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read the images and categories in ``instances_*.json``.

    Labels are the categories' names, as their ids have gaps.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: no such file, not JSON, a missing field, or an annotation of an image or
            category that is not listed.
    """
    files = _instances(location)
    if not files:
        raise SchnRayError(
            f"{location}: expected annotations/instances_<part>.json, as COCO has them"
        )
    for folder, name, part in files:
        file = join(location, f"{folder}/{name}" if folder else name)
        values = _parsed(file)
        images = first_below(location, part, f"images/{part}", "images") or ""
        try:
            yield from _coco_rows(file, values, images, split_word(part))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SchnRayError(f"{file}: not COCO's layout: {_missing(error)}") from error


def _coco_rows(file: str, values: dict[str, Any], folder: str, split: str | None) -> Iterator[Item]:
    names = {category["id"]: str(category["name"]) for category in values["categories"]}
    of_image: dict[int, list[str]] = {image["id"]: [] for image in values["images"]}
    for index, annotation in enumerate(values["annotations"]):
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in of_image or category not in names:
            what = f"image_id {image}" if image not in of_image else f"category_id {category}"
            raise SchnRayError(f"{file}: annotations[{index}] has {what}, which is not listed")
        of_image[image].append(names[category])
    for number, image in enumerate(values["images"], 1):
        path, labels = str(image["file_name"]), tuple(dict.fromkeys(of_image[image["id"]]))
        entry = Entry(path, labels, number, "", split, -1, file)
        yield Item(f"{folder}/{path}" if folder else path, entry)


def _instances(location: str) -> list[tuple[str, str, str]]:
    return [
        (folder, name, match["part"])
        for folder in ("annotations", "")
        for name in sorted(names_in(join(location, folder) if folder else location))
        if (match := _INSTANCES.fullmatch(name))
    ]


def _parsed(file: str) -> dict[str, Any]:
    try:
        values = json.loads("".join(text_lines(file)))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise SchnRayError(f"{file}:{line}: not JSON: {error}; get it again") from error
    if not isinstance(values, dict):
        raise SchnRayError(f"{file}: holds a {type(values).__name__}; expected COCO's object")
    return values


def _missing(error: Exception) -> str:
    return f"no field {error}" if isinstance(error, KeyError) else str(error)


# --- Pascal VOC: JPEGImages/, ImageSets/Main/{train,val,<class>_trainval}.txt


def has_voc(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has VOC's images and lists.

    Args:
        location: the folder.
        names: the names in it.
    """
    return _voc_root(location) is not None


def voc_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read the lists of VOC's classification task.

    In them, 1 means present, -1 absent and 0 hard to see; only 1 gives a label.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: a missing list, a line in another format, or an image in neither ``train.txt``
            nor ``val.txt``.
    """
    root = _voc_root(location)
    if root is None:
        raise SchnRayError(f"{location}: expected VOC's JPEGImages and ImageSets/Main")
    lists = f"{root}ImageSets/Main"
    names = names_in(join(location, lists))
    if not {"train.txt", "val.txt"} <= names:
        raise SchnRayError(f"{location}/{lists}: expected train.txt and val.txt")
    entries: dict[str, Entry] = {}
    for name, split in (("train.txt", TRAIN), ("val.txt", QUERY)):
        file = join(location, f"{lists}/{name}")
        for line, image in enumerate(map(str.strip, read_lines(file)), 1):
            entries[image] = Entry(image, (), line, "" if image else "no id", split, -1, file)
    labels: dict[str, list[str]] = {image: [] for image in entries}
    for name in sorted(names):
        category, _, ending = name.rpartition("_")
        if category and ending == "trainval.txt":
            for image in _voc_positives(join(location, f"{lists}/{name}"), labels):
                labels[image].append(category)
    for image, entry in entries.items():
        yield Item(f"{root}JPEGImages/{image}.jpg", entry._replace(labels=tuple(labels[image])))


def _voc_root(location: str) -> str | None:
    for folder in _VOC_FOLDERS:
        below = f"{folder}/" if folder else ""
        if {"JPEGImages", "ImageSets"} <= names_in(join(location, folder) if folder else location):
            return below
    return None


def _voc_positives(file: str, known: dict[str, list[str]]) -> Iterator[str]:
    for line, text in enumerate(read_lines(file), 1):
        fields = text.split()
        if len(fields) != 2 or fields[1] not in ("1", "0", "-1"):
            raise SchnRayError(f"{file}:{line}: expected 'image 1', 0 or -1, got {text[:60]!r}")
        if fields[0] not in known:
            raise SchnRayError(f"{file}:{line}: {fields[0]} is in neither train.txt nor val.txt")
        if fields[1] == "1":
            yield fields[0]
