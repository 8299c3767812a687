"""NUS-WIDE and MIRFlickr-25K as published: photos, and for each concept a file of labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.listing import Item, read_lines

_CONCEPT = re.compile(r"Labels_(?P<concept>[^/]+)\.txt")
_PHOTO = re.compile(r"im(?P<number>[0-9]+)\.jpg")
_README = ("readme", "license", "copying")


def first_below(location: str, *candidates: str) -> str | None:
    """Return the first path that exists below a folder, None if none does.

    Args:
        location: the folder.
        candidates: paths relative to it, such as ``a`` or ``a/b``.
    """
    for candidate in candidates:
        *folders, name = candidate.split("/")
        if name in names_in(join(location, "/".join(folders)) if folders else location):
            return candidate
    return None


# --- NUS-WIDE: Imagelist.txt, AllLabels/Labels_<concept>.txt, Flickr/<folder>/<photo>.jpg


def has_nuswide(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has NUS-WIDE's list of images.

    Args:
        location: the folder.
        names: the names in it.
    """
    return _nuswide_list(location) is not None


def nuswide_items(location: str, config: SourceConfig) -> Iterator[Item]:
    r"""Read the list of images and each concept's file.

    The list has ``class\file.jpg`` on each line; a concept's file has 0 or 1 for each of them.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: no files of concepts, or one that does not fit the list of images.
    """
    images = _nuswide_list(location)
    labels = first_below(location, "AllLabels", "Groundtruth/AllLabels", "GroundTruth/AllLabels")
    if images is None or labels is None:
        raise SchnRayError(
            f"{location}: expected NUS-WIDE's ImageList/Imagelist.txt and Groundtruth/AllLabels/"
            "Labels_<concept>.txt"
        )
    paths = [line.strip().replace("\\", "/") for line in read_lines(join(location, images))]
    of_image: list[list[str]] = [[] for _ in paths]
    for name in sorted(names_in(join(location, labels))):
        if match := _CONCEPT.fullmatch(name):
            for row in _ones_of(join(location, f"{labels}/{name}"), len(paths)):
                of_image[row].append(match["concept"])
    if not any(_CONCEPT.fullmatch(name) for name in names_in(join(location, labels))):
        raise SchnRayError(f"{location}/{labels}: no files Labels_<concept>.txt in there")
    folder = first_below(location, "Flickr", "images", "image")
    for number, (path, concepts) in enumerate(zip(paths, of_image, strict=True), 1):
        problem = "" if path else "an empty line"
        entry = Entry(path, tuple(concepts), number, problem, None, -1, join(location, images))
        yield Item(f"{folder}/{path}" if folder else path, entry)


def _nuswide_list(location: str) -> str | None:
    return first_below(location, "Imagelist.txt", "ImageList/Imagelist.txt")


def _ones_of(file: str, rows: int) -> Iterator[int]:
    lines = read_lines(file)
    if len(lines) != rows:
        raise SchnRayError(
            f"{file}:{len(lines)}: {len(lines):,} lines, where the list of images has {rows:,}; "
            "the file is cut short or of another version: get it again"
        )
    for row, line in enumerate(lines):
        if (label := line.strip()) not in ("0", "1"):
            raise SchnRayError(f"{file}:{row + 1}: expected 0 or 1, got {label[:40]!r}")
        if label == "1":
            yield row


# --- MIRFlickr-25K: im1.jpg ..., and for each concept a file with the numbers of its images


def has_mirflickr(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has MIRFlickr's photos and annotations.

    Args:
        location: the folder.
        names: the names in it.
    """
    return _mirflickr_photos(location) is not None and _annotations(location) is not None


def mirflickr_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read the annotations: each concept's file has a photo's number (from 1) on each line.

    A file that ends with ``_r1`` (the concept is the photo's main subject) is a concept of its own.

    Args:
        location: the data set's folder.
        config: not used.

    Raises:
        SchnRayError: no photos or annotations, or a line that is not the number of a photo.
    """
    folder, annotations = _mirflickr_photos(location), _annotations(location)
    if folder is None or annotations is None:
        raise SchnRayError(
            f"{location}: expected im1.jpg ... (perhaps in mirflickr/) and the annotations, such "
            "as mirflickr25k_annotations_v080/animals.txt"
        )
    photos = _numbered(join(location, folder) if folder else location)
    of_photo: dict[int, list[str]] = {number: [] for number in photos}
    for name in sorted(names_in(join(location, annotations))):
        if _is_concept(name):
            for number in _numbers_of(join(location, f"{annotations}/{name}"), photos):
                of_photo[number].append(name.removesuffix(".txt"))
    for number in sorted(photos):
        name = photos[number]
        concepts = tuple(dict.fromkeys(of_photo[number]))
        yield Item(f"{folder}/{name}" if folder else name, Entry(name, concepts, number))


def _mirflickr_photos(location: str) -> str | None:
    first = first_below(location, "im1.jpg", "mirflickr/im1.jpg", "images/im1.jpg")
    return None if first is None else first.rpartition("/")[0]


def _annotations(location: str) -> str | None:
    candidates = ("mirflickr25k_annotations_v080", "annotations", "mirflickr25k_annotations")
    return first_below(location, *candidates)


def _is_concept(name: str) -> bool:
    return name.endswith(".txt") and not name.lower().startswith(_README)


def _numbered(folder: str) -> dict[int, str]:
    matches = (_PHOTO.fullmatch(name) for name in names_in(folder))
    return {int(match["number"]): match[0] for match in matches if match}


def _numbers_of(file: str, photos: dict[int, str]) -> Iterator[int]:
    for number, line in enumerate(read_lines(file), 1):
        if not (text := line.strip()):
            continue
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise SchnRayError(
                f"{file}:{number}: expected the number of an image, got {text[:40]!r}"
            )
        if int(text) not in photos:
            raise SchnRayError(
                f"{file}:{number}: there is no im{int(text)}.jpg; numbers start at 1 and end at "
                f"{max(photos)}"
            )
        yield int(text)
