"""Lists: text with a path a line, HashNet's three lists, images and labels in two lists, CSV.

A text line is ``path``, ``path class`` (a whole number), or ``path l1 ... lC`` of 0 and 1 as
HashNet's lists have them; labels are then the places of the ones. The first line says which. A CSV
has a header with ``path``, and perhaps ``labels`` (with ``;`` between them), ``id`` and ``split``.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterator

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.listing import GALLERY, Item, read_lines, read_text, split_word

_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[0-9]+")
_ONEHOT, _INDICES, _IMAGES = "_label_onehot.txt", "_label.txt", "_img.txt"


# --- one list


def text_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read a text list; an id is the path as the list has it."""
    wanted: int | None = None
    for number, line in enumerate(read_text(place).split("\n"), 1):
        if found := _path_and_fields(line):
            path, fields = found
            wanted = len(fields) if wanted is None else wanted
            labels, problem = _labels(fields, wanted)
            yield Item(path, Entry(path, labels, number, problem, None, -1, place))


def _path_and_fields(line: str) -> tuple[str, list[str]] | None:
    """Cut a line into its path, which may have spaces, and the numbers at its end.

    >>> _path_and_fields("my cat 2.jpg 0 1 ")
    ('my cat 2.jpg', ['0', '1'])
    """
    words = list(_WORD.finditer(line))
    if not words:
        return None
    end = len(words)
    while end > 1 and _NUMBER.fullmatch(words[end - 1][0]):
        end -= 1
    return line[: words[end - 1].end()], [word[0] for word in words[end:]]


def _labels(fields: list[str], wanted: int) -> tuple[tuple[str, ...], str]:
    """Return the labels of a line, and what is wrong with it."""
    if len(fields) != wanted:
        return (), f"{1 + len(fields)} fields, where the first line has {1 + wanted}"
    if wanted < 2:
        return tuple(map(_plain, fields)), ""
    return _ones(fields)


def _ones(fields: list[str]) -> tuple[tuple[str, ...], str]:
    if not set(fields) <= {"0", "1"}:
        return (), "labels other than 0 and 1"
    return tuple(str(c) for c, field in enumerate(fields) if field == "1"), ""


def _plain(number: str) -> str:
    return number.lstrip("0") or "0"  # Python's int refuses thousands of digits


# --- train.txt, test.txt, database.txt


def has_split_lists(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has lists that are named for what their images are for."""
    words = {split_word(name.removesuffix(".txt")) for name in names if name.endswith(".txt")}
    return GALLERY in words or {"train", "test"} <= words


def split_list_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read HashNet's lists: an image in several of them is one row, with several uses.

    Where two lists label it differently, the row is put aside.
    """
    found: dict[str, Item] = {}
    for name, word in _by_split(place, ".txt"):
        seen = set[str]()
        for path, entry in text_items(join(place, name), config):
            entry = entry._replace(split=word)
            before = found.get(path)
            if path in seen or (before is None and entry.problem):
                yield Item(path, entry)  # twice in one list: whoever writes the rows puts it aside
            else:
                found[path] = _merged(before, Item(path, entry)) if before else Item(path, entry)
            seen.add(path)
    yield from found.values()


def _merged(before: Item, now: Item) -> Item:
    old, new = before.entry, now.entry
    if new.problem or old.problem:
        return now if new.problem else before
    if old.labels != new.labels:
        where = f"{posixpath.basename(old.list)} line {old.line}"
        return Item(now.path, new._replace(problem=f"other labels than in {where}"))
    words = sorted({*(old.split or "").split(), new.split or ""})
    return Item(before.path, old._replace(split=" ".join(words)))


def _by_split(place: str, ending: str) -> list[tuple[str, str]]:
    """Return the files of a folder whose name says a use, and the use, training first."""
    order = ("train", "test", GALLERY)
    names = sorted(name for name in names_in(place) if name.endswith(ending))
    used = [(name, split_word(name.removesuffix(ending))) for name in names]
    known = [(name, word) for name, word in used if word]
    return sorted(known, key=lambda pair: order.index(pair[1]))


# --- paths and labels in two lists


def has_paired_lists(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has lists of images with lists of labels beside them."""
    return any(name.endswith(_IMAGES) for name in names)


def paired_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read ``x_img.txt`` with ``x_label_onehot.txt``, or else ``x_label.txt`` of class numbers.

    Raises:
        SchnRayError: no labels for a list of images, or not as many.
    """
    folder = posixpath.dirname(place) if place.endswith(_IMAGES) else place
    names = names_in(folder)
    images = [posixpath.basename(place)] if place.endswith(_IMAGES) else sorted(names)
    for name in (name for name in images if name.endswith(_IMAGES)):
        stem = name.removesuffix(_IMAGES)
        beside = [stem + ending for ending in (_ONEHOT, _INDICES) if stem + ending in names]
        if not beside:
            raise SchnRayError(
                f"{join(folder, name)}: no labels beside it; wanted {stem}{_ONEHOT} or "
                f"{stem}{_INDICES}"
            )
        yield from _paired(join(folder, name), join(folder, beside[0]), split_word(stem))


def _paired(images: str, labels: str, word: str | None) -> Iterator[Item]:
    paths, lines = read_lines(images), read_lines(labels)
    if len(paths) != len(lines):
        raise SchnRayError(
            f"{labels}:{len(lines)}: {len(lines):,} lines of labels, but {images} has "
            f"{len(paths):,} images; both need a line an image"
        )
    onehot = labels.endswith(_ONEHOT)
    wanted = len(lines[0].split()) if onehot and lines else None
    for number, (path, line) in enumerate(zip(paths, lines, strict=True), 1):
        path, fields = path.strip(), line.split()
        if not path and not fields:
            continue
        found, problem = _of_pair(path, fields, wanted)
        yield Item(path, Entry(path, found, number, problem, word, -1, labels))


def _of_pair(path: str, fields: list[str], wanted: int | None) -> tuple[tuple[str, ...], str]:
    if not path:
        return (), "no path"
    if wanted is not None and len(fields) != wanted:
        return (), f"{len(fields)} labels, where the first line has {wanted}"
    if wanted is not None:
        return _ones(fields)
    if not all(map(_NUMBER.fullmatch, fields)):
        return (), "labels that are no whole numbers"
    return tuple(dict.fromkeys(map(_plain, fields))), ""


# --- CSV


def csv_items(place: str, config: SourceConfig) -> Iterator[Item]:
    """Read a CSV.

    Raises:
        SchnRayError: not CSV, or without a column of paths.
    """
    reader = csv.reader(io.StringIO(read_text(place), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _columns(place, header, config)
        for cells in reader:
            if cells:
                yield _record(cells, columns, len(header), reader.line_num)
    except csv.Error as error:
        raise SchnRayError(f"{place}:{reader.line_num}: not CSV: {error}") from error


_Columns = tuple[int, int | None, int | None, int | None]


def _columns(place: str, header: list[str], config: SourceConfig) -> _Columns:
    """Return the places of path, labels, id and split."""
    if config.path_column not in header:
        raise SchnRayError(
            f"{place}: no column '{config.path_column}'"
            f"{nearest(config.path_column, header)} Its first line is: {', '.join(header)}; "
            "wanted a header. Say which column holds the paths with --set "
            "source.path_column=NAME"
        )
    if repeated := [name for name in header if header.count(name) > 1]:
        raise SchnRayError(f"{place}:1: the header has '{repeated[0]}' twice; rename one of them")
    labels = config.label_column if config.label_column in header else "labels"
    places = {name: column for column, name in enumerate(header)}
    optional = (labels, config.id_column, config.split_column)
    path, *rest = (places.get(name) for name in (config.path_column, *optional))
    assert path is not None
    return path, rest[0], rest[1], rest[2]


def _record(cells: list[str], columns: _Columns, wanted: int, line: int) -> Item:
    if len(cells) != wanted:
        problem = f"{len(cells)} fields, where the header has {wanted}"
        return Item(cells[0], Entry(cells[0], (), line, problem))
    path, labels, row_id, word = (None if at is None else cells[at] for at in columns)
    names = [name.strip() for name in (labels or "").split(";")]
    problem = "" if path else "no path"
    found = tuple(dict.fromkeys(filter(None, names)))
    return Item(path or "", Entry(row_id or path or "", found, line, problem, word or None))
