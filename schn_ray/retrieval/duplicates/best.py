"""Which image of each group to keep: the largest, of equally large ones the oldest.

Size and date are read where the images lie now, by their uris: pixels from the header of the file,
bytes, and the time of its last change. An image in a tar, a table or a store has no date of its
own. One that cannot be read is unknown, and is kept only where a group has no other.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.core.storage.files import open_file, size_and_stamp
from schn_ray.data.images import BadImage, image_size
from schn_ray.data.sources.fetch import fetch
from schn_ray.retrieval.duplicates.bands import group_starts

UNKNOWN = -1
_THREADS = 8  # they wait for the disk or the network
_LATEST = np.iinfo(np.int64).max


class ImageFacts(NamedTuple):
    """Size and date of m images; UNKNOWN where an image cannot be read, or has no date.

    Attributes:
        width: int64 [m], in pixels.
        height: int64 [m], in pixels.
        bytes: int64 [m], of the encoded image.
        modified: int64 [m], the time of the file's last change, in nanoseconds since 1970.
    """

    width: NDArray[np.int64]
    height: NDArray[np.int64]
    bytes: NDArray[np.int64]
    modified: NDArray[np.int64]


def read_facts(uris: Iterable[list[str]], total: int) -> ImageFacts:
    """Read size and date of images.

    Args:
        uris: of the images, a part at a time.
        total: images in all.
    """
    facts = np.full((4, total), UNKNOWN, np.int64)
    start = 0
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        Progress("reading sizes", total=total, unit="images") as progress,
    ):
        for part in uris:
            facts[:, start : start + len(part)] = np.array(list(pool.map(_facts, part))).T
            start += len(part)
            progress.advance(len(part))
    return ImageFacts(*facts)


def choose_best(groups: NDArray[np.int64], facts: ImageFacts) -> NDArray[np.int64]:
    """Return the position of the image to keep of each group: int64 [g].

    It has the most pixels; of equal ones the most bytes, then the earliest date, then the first id.

    Args:
        groups: int64 [m], the group of each image, 0 to g - 1, ascending; in a group, ids ascend.
        facts: of the images.

    Example:
        >>> facts = ImageFacts(*np.array([[8, 8, 9], [8, 8, 9], [70, 70, 90], [5, 4, 6]]))
        >>> choose_best(np.array([0, 0, 1]), facts).tolist()
        [1, 2]
    """
    pixels = np.where(facts.width < 0, UNKNOWN, facts.width * facts.height)
    modified = np.where(facts.modified < 0, _LATEST, facts.modified)
    order = np.lexsort((modified, -facts.bytes, -pixels, groups))  # stable: then by id
    best: NDArray[np.int64] = order[group_starts(groups)[:-1]]  # groups[order] is groups
    return best


def _facts(uri: str) -> tuple[int, int, int, int]:
    try:
        return _file_facts(uri) or _row_facts(uri)
    except (SchnRayError, BadImage, OSError):
        return UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN


def _file_facts(uri: str) -> tuple[int, int, int, int] | None:
    try:
        size, stamp = size_and_stamp(uri)
    except (OSError, ValueError):
        return None  # perhaps a row of a file
    changed = stamp.rpartition("-")[2]
    with open_file(uri) as file:
        width, height = image_size(cast(IO[bytes], file))
    return width, height, size, int(changed) if changed.isdecimal() else UNKNOWN


def _row_facts(uri: str) -> tuple[int, int, int, int]:
    data = fetch(uri)
    return *image_size(io.BytesIO(data)), len(data), UNKNOWN


def id_lines(ids: Iterable[str], what: str) -> Iterator[str]:
    """Yield a line for each id or path, for a list in a text file.

    Args:
        ids: the ids or paths.
        what: names them in the error.

    Raises:
        SchnRayError: one has a line break, so that a list would name something else.
    """
    for id in ids:
        if "\n" in id or "\r" in id:
            raise SchnRayError(
                f"the {what} {id!r} has a line break, which a list of lines cannot hold: rename "
                "it, or leave --keep out"
            )
        yield f"{id}\n"
