"""Lists of images: text with a path a line, HashNet's three lists, two lists in parallel, and CSV.

A line of text is ``path``, ``path class`` with a class number, or ``path l1 ... lC`` with 0 or 1
for each class, as in HashNet's lists; labels are then the numbers of the classes with a 1. The
first line decides. A CSV has a header with ``path``, and optionally ``labels`` (separated by
``;``), ``id`` and ``split``; commas, semicolons or tabs are between the columns.
"""

from __future__ import annotations

import csv
import itertools
import posixpath
import re
from collections.abc import Iterator

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.listing import GALLERY, Item, read_lines, split_word, text_lines
from schn_ray.data.sources.usual_columns import with_usual_columns

_WORD = re.compile(r"\S+")
_NUMBER = re.compile(r"[0-9]+")
_DELIMITERS = (",", ";", "\t")
_ONEHOT, _INDICES, _IMAGES = "_label_onehot.txt", "_label.txt", "_img.txt"


# --- one list


def text_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read a text list; an image's id is its path as in the list.

    Args:
        location: the list.
        config: not used.

    Raises:
        SchnRayError: the list cannot be read.
    """
    field_count: int | None = None
    for number, line in enumerate(text_lines(location), 1):
        if path_and_fields := _path_and_fields(line):
            path, fields = path_and_fields
            field_count = len(fields) if field_count is None else field_count
            labels, problem = _labels(fields, field_count)
            yield Item(path, Entry(path, labels, number, problem, None, -1, location))


def _path_and_fields(line: str) -> tuple[str, list[str]] | None:
    """Split a line into its path, which may have spaces, and the numbers at its end.

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


def _labels(fields: list[str], field_count: int) -> tuple[tuple[str, ...], str]:
    """Return a line's labels, and what is wrong with it or an empty text."""
    if len(fields) != field_count:
        return (), f"{1 + len(fields)} fields, where the first line has {1 + field_count}"
    if field_count < 2:
        return tuple(map(_plain, fields)), ""
    return _ones(fields)


def _ones(fields: list[str]) -> tuple[tuple[str, ...], str]:
    if not set(fields) <= {"0", "1"}:
        return (), "labels other than 0 and 1"
    return tuple(str(c) for c, field in enumerate(fields) if field == "1"), ""


def _plain(number: str) -> str:
    return number.lstrip("0") or "0"  # Python's int refuses thousands of digits


# --- train.txt, test.txt, database.txt


def has_split_lists(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has lists that are named after splits.

    Args:
        location: the folder.
        names: the names in it.
    """
    splits = {split_word(name.removesuffix(".txt")) for name in names if name.endswith(".txt")}
    return GALLERY in splits or {"train", "test"} <= splits


def split_list_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read HashNet's lists. An image that is in more than one of them has more than one split.

    An image with other labels in another list is yielded with that problem.

    Args:
        location: the folder with the lists.
        config: not used.

    Raises:
        SchnRayError: a list cannot be read.
    """
    items: dict[str, Item] = {}
    for name, split in _files_by_split(location, ".txt"):
        in_this_list = set[str]()
        for path, entry in text_items(join(location, name), config):
            entry = entry._replace(split=split)
            before = items.get(path)
            if path in in_this_list or (before is None and entry.problem):
                yield Item(path, entry)  # a repeated id is quarantined when the rows are written
            else:
                items[path] = _merged(before, Item(path, entry)) if before else Item(path, entry)
            in_this_list.add(path)
    yield from items.values()


def _merged(before: Item, now: Item) -> Item:
    """Join an image's items of two lists: one item with both splits, or with the problem."""
    old, new = before.entry, now.entry
    if new.problem or old.problem:
        return now if new.problem else before
    if old.labels != new.labels:
        first = f"{posixpath.basename(old.list)} line {old.line}"
        return Item(now.path, new._replace(problem=f"other labels than in {first}"))
    splits = sorted({*(old.split or "").split(), new.split or ""})
    return Item(before.path, old._replace(split=" ".join(splits)))


def _files_by_split(location: str, ending: str) -> list[tuple[str, str]]:
    """Return the files that are named after a split, each with its split; training first."""
    order = ("train", "test", GALLERY)
    names = sorted(name for name in names_in(location) if name.endswith(ending))
    splits = [(name, split_word(name.removesuffix(ending))) for name in names]
    named = [(name, split) for name, split in splits if split]
    return sorted(named, key=lambda pair: order.index(pair[1]))


# --- paths and labels in two lists


def has_paired_lists(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has lists of images whose labels are in lists of their own.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.endswith(_IMAGES) for name in names)


def paired_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read ``x_img.txt`` together with ``x_label_onehot.txt`` or, without it, ``x_label.txt``.

    The first has 0 or 1 for each class on a line, the second class numbers.

    Args:
        location: one list of images, or a folder of them.
        config: not used.

    Raises:
        SchnRayError: a list of images has no labels, or another number of lines than these.
    """
    folder = posixpath.dirname(location) if location.endswith(_IMAGES) else location
    names = names_in(folder)
    images = [posixpath.basename(location)] if location.endswith(_IMAGES) else sorted(names)
    for name in (name for name in images if name.endswith(_IMAGES)):
        stem = name.removesuffix(_IMAGES)
        labels = [stem + ending for ending in (_ONEHOT, _INDICES) if stem + ending in names]
        if not labels:
            raise SchnRayError(
                f"{join(folder, name)}: no labels beside it; expected {stem}{_ONEHOT} or "
                f"{stem}{_INDICES}"
            )
        yield from _paired(join(folder, name), join(folder, labels[0]), split_word(stem))


def _paired(images: str, labels: str, split: str | None) -> Iterator[Item]:
    paths, lines = read_lines(images), read_lines(labels)
    if len(paths) != len(lines):
        raise SchnRayError(
            f"{labels}:{len(lines)}: {len(lines):,} lines of labels, but {images} has "
            f"{len(paths):,} images; both need one line for each image"
        )
    onehot = labels.endswith(_ONEHOT)
    classes = len(lines[0].split()) if onehot and lines else None
    for number, (path, line) in enumerate(zip(paths, lines, strict=True), 1):
        path, fields = path.strip(), line.split()
        if not path and not fields:
            continue
        names, problem = _labels_of_pair(path, fields, classes)
        yield Item(path, Entry(path, names, number, problem, split, -1, labels))


def _labels_of_pair(
    path: str, fields: list[str], classes: int | None
) -> tuple[tuple[str, ...], str]:
    """Return an image's labels, and what is wrong with its lines; ``classes`` of one-hot labels."""
    if not path:
        return (), "no path"
    if classes is not None and len(fields) != classes:
        return (), f"{len(fields)} labels, where the first line has {classes}"
    if classes is not None:
        return _ones(fields)
    if not all(map(_NUMBER.fullmatch, fields)):
        return (), "labels that are not whole numbers"
    return tuple(dict.fromkeys(map(_plain, fields))), ""


# --- CSV


def csv_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read a CSV.

    Args:
        location: the file.
        config: names the columns.

    Raises:
        SchnRayError: not CSV, no column of paths, or two columns with the same name.
    """
    lines = text_lines(location, newline="")
    first = next(lines, "")
    reader = csv.reader(
        itertools.chain([first], lines), strict=True, delimiter=_delimiter(first, config)
    )
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _columns(location, header, config)
        for cells in reader:
            if cells:
                yield _record(cells, columns, len(header), reader.line_num)
    except csv.Error as error:
        raise SchnRayError(f"{location}:{reader.line_num}: not CSV: {error}") from error


def _delimiter(header: str, config: SourceConfig) -> str:
    """Return what is between the columns: that by which the header has a column of paths."""
    for delimiter in _DELIMITERS:
        names = [name.strip().strip('"') for name in header.strip().split(delimiter)]
        if with_usual_columns(names, config).path_column in names:
            return delimiter
    return max(_DELIMITERS, key=header.count)


_Columns = tuple[int, int | None, int | None, int | None]


def _columns(location: str, header: list[str], config: SourceConfig) -> _Columns:
    """Return the column numbers of path, labels, id and split; None for one that is missing."""
    config = with_usual_columns(header, config)
    if config.path_column not in header:
        raise SchnRayError(
            f"{location}: no column '{config.path_column}'"
            f"{nearest(config.path_column, header) or '.'} The first line is: {', '.join(header)}; "
            "expected a header. Name the column of paths with --set source.path_column=NAME"
        )
    if repeated := [name for name in header if header.count(name) > 1]:
        raise SchnRayError(
            f"{location}:1: the header has '{repeated[0]}' twice; rename one of them"
        )
    column_of = {name: column for column, name in enumerate(header)}
    optional = (config.label_column, config.id_column, config.split_column)
    path, *rest = (column_of.get(name) for name in (config.path_column, *optional))
    assert path is not None
    return path, rest[0], rest[1], rest[2]


def _record(cells: list[str], columns: _Columns, header_fields: int, line: int) -> Item:
    if len(cells) != header_fields:
        problem = f"{len(cells)} fields, where the header has {header_fields}"
        return Item(cells[0], Entry(cells[0], (), line, problem))
    path, labels, row_id, split = (None if c is None else cells[c] for c in columns)
    names = [name.strip() for name in (labels or "").split(";")]
    problem = "" if path else "no path"
    unique = tuple(dict.fromkeys(filter(None, names)))
    return Item(path or "", Entry(row_id or path or "", unique, line, problem, split or None))
