"""NUS-WIDE and MIRFlickr-25K in their makers' files: a file a concept, over photos from Flickr."""

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


def first_below(place: str, *candidates: str) -> str | None:
    """Return the first of these that a folder has; ``a/b`` is looked up below ``a``."""
    for candidate in candidates:
        *folders, name = candidate.split("/")
        if name in names_in(join(place, "/".join(folders)) if folders else place):
            return candidate
    return None


# --- NUS-WIDE: Imagelist.txt, AllLabels/Labels_<concept>.txt, Flickr/<folder>/<photo>.jpg


def has_nuswide(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has NUS-WIDE's list of images."""
    return _nuswide_list(place) is not None


def nuswide_items(place: str, config: SourceConfig) -> Iterator[Item]:
    r"""Read the list of images, ``class\file.jpg`` a line, and a file of 0 and 1 a concept.

    Raises:
        SchnRayError: no files of concepts, or one with other lines than the list of images.
    """
    images = _nuswide_list(place)
    labels = first_below(place, "AllLabels", "Groundtruth/AllLabels", "GroundTruth/AllLabels")
    if images is None or labels is None:
        raise SchnRayError(
            f"{place}: wanted NUS-WIDE's ImageList/Imagelist.txt and Groundtruth/AllLabels/"
            "Labels_<concept>.txt"
        )
    paths = [line.strip().replace("\\", "/") for line in read_lines(join(place, images))]
    of_image: list[list[str]] = [[] for _ in paths]
    for name in sorted(names_in(join(place, labels))):
        if found := _CONCEPT.fullmatch(name):
            for row in _ones_of(join(place, f"{labels}/{name}"), len(paths)):
                of_image[row].append(found["concept"])
    if not any(_CONCEPT.fullmatch(name) for name in names_in(join(place, labels))):
        raise SchnRayError(f"{place}/{labels}: no files Labels_<concept>.txt in there")
    folder = first_below(place, "Flickr", "images", "image")
    for number, (path, concepts) in enumerate(zip(paths, of_image, strict=True), 1):
        problem = "" if path else "an empty line"
        entry = Entry(path, tuple(concepts), number, problem, None, -1, join(place, images))
        yield Item(f"{folder}/{path}" if folder else path, entry)


def _nuswide_list(place: str) -> str | None:
    return first_below(place, "Imagelist.txt", "ImageList/Imagelist.txt")


def _ones_of(file: str, rows: int) -> Iterator[int]:
    lines = read_lines(file)
    if len(lines) != rows:
        raise SchnRayError(
            f"{file}:{len(lines)}: {len(lines):,} lines, where the list of images has {rows:,}; "
            "the file is cut short or of another version: get it again"
        )
    for row, line in enumerate(lines):
        if (label := line.strip()) not in ("0", "1"):
            raise SchnRayError(f"{file}:{row + 1}: wanted 0 or 1, got {label[:40]!r}")
        if label == "1":
            yield row


# --- MIRFlickr-25K: im1.jpg ..., a file a concept with the numbers of its images


def has_mirflickr(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has MIRFlickr's photos and annotations."""
    return _mirflickr_photos(place) is not None and _annotations(place) is not None


def mirflickr_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read the annotations: 1-based numbers of images, one a line; ``_r1`` are concepts, too.

    Raises:
        SchnRayError: no photos or annotations, or a line that is no number of a photo.
    """
    folder, annotations = _mirflickr_photos(place), _annotations(place)
    if folder is None or annotations is None:
        raise SchnRayError(
            f"{place}: wanted im1.jpg ... (perhaps in mirflickr/) and the annotation files, such "
            "as mirflickr25k_annotations_v080/animals.txt"
        )
    photos = _numbered(join(place, folder) if folder else place)
    of_photo: dict[int, list[str]] = {number: [] for number in photos}
    for name in sorted(names_in(join(place, annotations))):
        if _is_concept(name):
            for number in _numbers_of(join(place, f"{annotations}/{name}"), photos):
                of_photo[number].append(name.removesuffix(".txt"))
    for number in sorted(photos):
        name = photos[number]
        concepts = tuple(dict.fromkeys(of_photo[number]))
        yield Item(f"{folder}/{name}" if folder else name, Entry(name, concepts, number))


def _mirflickr_photos(place: str) -> str | None:
    found = first_below(place, "im1.jpg", "mirflickr/im1.jpg", "images/im1.jpg")
    return None if found is None else found.rpartition("/")[0]


def _annotations(place: str) -> str | None:
    candidates = ("mirflickr25k_annotations_v080", "annotations", "mirflickr25k_annotations")
    return first_below(place, *candidates)


def _is_concept(name: str) -> bool:
    return name.endswith(".txt") and not name.lower().startswith(_README)


def _numbered(folder: str) -> dict[int, str]:
    found = (_PHOTO.fullmatch(name) for name in names_in(folder))
    return {int(match["number"]): match[0] for match in found if match}


def _numbers_of(file: str, photos: dict[int, str]) -> Iterator[int]:
    for at, line in enumerate(read_lines(file), 1):
        if not (text := line.strip()):
            continue
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise SchnRayError(f"{file}:{at}: wanted the number of an image, got {text[:40]!r}")
        if int(text) not in photos:
            raise SchnRayError(
                f"{file}:{at}: there is no im{int(text)}.jpg; numbers start at 1 and end at "
                f"{max(photos)}"
            )
        yield int(text)
