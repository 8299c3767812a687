"""Folders as Hugging Face has them: images, and their labels in a ``metadata.jsonl``."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join, names_in
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import Entry
from schn_ray.data.sources.listing import Item, label_names, read_lines, split_word
from schn_ray.data.sources.usual_columns import with_usual_columns

METADATA = "metadata.jsonl"
_NAME = "file_name"


def has_metadata(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder, or a split's folder in it, has a ``metadata.jsonl``.

    Args:
        location: the folder.
        names: the names in it.
    """
    return bool(_folders(location))


def metadata_items(location: str, config: SourceConfig) -> Iterator[Item]:
    """Read ``metadata.jsonl``: on each line an object with ``file_name`` and the columns.

    Args:
        location: the data set's folder; a ``file_name`` is relative to the folder of its
            ``metadata.jsonl``.
        config: names the columns of labels, id and split.

    Raises:
        SchnRayError: no ``metadata.jsonl``.
    """
    folders = _folders(location)
    if not folders:
        raise SchnRayError(f"{location}: no {METADATA} in there or in a folder of it")
    for folder in folders:
        file = join(location, posixpath.join(folder, METADATA))
        for number, line in enumerate(read_lines(file), 1):
            if line.strip():
                yield _item(folder, file, number, line, config)


def _folders(location: str) -> list[str]:
    if METADATA in names_in(location):
        return [""]
    splits = sorted(name for name in names_in(location) if split_word(name))
    return [name for name in splits if METADATA in names_in(join(location, name))]


def _item(folder: str, file: str, number: int, line: str, config: SourceConfig) -> Item:
    values, problem = _object(line)
    name = values.get(_NAME)
    path = posixpath.join(folder, name) if isinstance(name, str) and name else ""
    row_id = values.get(config.id_column, path)
    entry = Entry(
        str(row_id) or f"line {number}", (), number, problem, split_word(folder), -1, file
    )
    if problem:
        return Item(path, entry)
    if not path:
        return Item(path, entry._replace(problem=f"no '{_NAME}'"))
    split = values.get(config.split_column)
    try:
        labels = label_names(values.get(with_usual_columns(values, config).label_column))
    except ValueError as error:
        return Item(path, entry._replace(problem=str(error)))
    return Item(path, entry._replace(labels=labels, split=split if split else entry.split))


def _object(line: str) -> tuple[dict[str, Any], str]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON: {error}"
    if not isinstance(values, dict):
        return {}, f"expected an object, got {type(values).__name__}"
    return values, ""
