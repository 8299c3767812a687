"""The columns of a table: the image or its path, and its id, labels, split and camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row
from schn_ray.data.sources.listing import fetch_listed
from schn_ray.data.sources.roots import Root

CAMERA = "camera"
NO_CLASS = "-1"  # how Hugging Face writes that a row has no label


def row_columns(names: list[str], config: SourceConfig) -> list[str]:
    """Return the columns that a row is built from.

    Args:
        names: all columns of the table.
        config: names the columns of image, id, labels and split.
    """
    columns = (config.id_column, config.image_column, config.label_column, config.split_column)
    return [name for name in (*columns, CAMERA) if name in names]


def row_uri(path: str, row: int, column: str) -> str:
    """Return the URI of one image: ``path#row``, then ``:column`` unless that is ``image``.

    Args:
        path: the table's file, a path or a URI.
        row: its number in the file, from 0.
        column: the column with the images.

    >>> row_uri("/data/a.parquet", 7, "image"), row_uri("/data/a.parquet", 7, "photo")
    ('/data/a.parquet#7', '/data/a.parquet#7:photo')
    """
    return f"{path}#{row}" + ("" if column == "image" else f":{column}")


def row_of(
    values: dict[str, Any],
    default_id: str,
    uri: str,
    root: Root,
    config: SourceConfig,
    class_names: tuple[str, ...] = (),
    split: str | None = None,
) -> Row | BadRow:
    """Build a row of an image from a table's values.

    Args:
        values: column -> value.
        default_id: the row's id where the table has no column of ids.
        uri: the row's URI where the table has the image itself.
        root: where paths of images are looked up.
        config: names the columns.
        class_names: names of labels that are numbers.
        split: its role, where no column has it.

    Returns:
        The row; a ``BadRow`` if it has no id or no image, an empty label, or an image file that
        cannot be read.
    """
    row_id = values.get(config.id_column, default_id)
    if row_id is None:
        return BadRow(default_id, uri, "read", no_id(config.id_column))
    row_id = str(row_id)
    image = values[config.image_column]
    if isinstance(image, dict):
        image = image["bytes"] if image["bytes"] is not None else image.get("path")
    if image is None:
        return BadRow(row_id, uri, "read", f"no image: '{config.image_column}' is null")
    if isinstance(image, str):
        fetched = fetch_listed(root, image, row_id)
        if isinstance(fetched, BadRow):
            return fetched
        uri, image = fetched
    value = values.get(config.label_column)
    labels = value if isinstance(value, list) else [] if value is None else [value]
    if empty_label(labels):
        return BadRow(row_id, uri, "read", f"an empty label in '{config.label_column}'")
    names = tuple(dict.fromkeys(map(str, labels)))
    if class_names:
        names = tuple(name for name in names if name != NO_CLASS)
        if problem := label_problem(names, class_names, config.label_column):
            return BadRow(row_id, uri, "read", problem)
        names = tuple(class_names[int(name)] for name in names)
    given, camera = values.get(config.split_column), values.get(CAMERA)
    return Row(
        row_id,
        image,
        names,
        uri,
        split if given is None else str(given),
        camera if isinstance(camera, int) else -1,
    )


def with_vector(row: Row | BadRow, vector: Any) -> Row | BadRow:
    """Add a vector to a row.

    Args:
        row: of an image.
        vector: [D] numbers; a text that says what is wrong with them; or None if there is none.
    """
    if isinstance(row, BadRow) or vector is None:
        return row
    if isinstance(vector, str):
        return BadRow(row.id, row.uri, "read", vector)
    return replace(row, vector=vector)


def no_id(column: str) -> str:
    """Return the reason of a row without an id.

    Args:
        column: of the ids.
    """
    return f"no id: column '{column}' is null"


def empty_label(labels: Sequence[Any]) -> bool:
    """Tell whether one of a row's labels is null or has no text.

    Args:
        labels: of one row.
    """
    return any(label is None or label == "" for label in labels)


def label_problem(labels: Sequence[str], class_names: tuple[str, ...], column: str) -> str:
    """Return what is wrong with class numbers; empty if nothing is.

    Args:
        labels: of one row.
        class_names: name of class 0, 1, ...
        column: of the labels.
    """
    for label in labels:
        is_number = label.isascii() and label.isdigit() and len(label) < 10
        if not is_number or int(label) >= len(class_names):
            return f"label {label!r} in '{column}' has no name: there are {len(class_names)}"
    return ""


def image_bytes(value: Any, path: str, row: int) -> bytes:
    """Return the encoded image in a value of the image column.

    Args:
        value: bytes, or a struct with a field ``bytes``.
        path: the table's file, for the message.
        row: the row's number, for the message.

    Raises:
        SchnRayError: the value is null.
    """
    image = value["bytes"] if isinstance(value, dict) else value
    if image is None:
        raise SchnRayError(f"{path}: row {row} has no image")
    return bytes(image)


def check_columns(
    path: str, schema: pa.Schema, config: SourceConfig, has_images: bool = True
) -> None:
    """Refuse a table with a missing image column, or a column of another type.

    Args:
        path: the table's file, for messages.
        schema: the table's columns and types.
        config: names the columns.
        has_images: whether there must be a column of images.

    Raises:
        SchnRayError: with the column's type and the types that it may have.
    """
    if has_images:
        check_image(path, schema, config.image_column)
    allowed = {
        config.id_column: ("text or whole numbers", _is_name),
        config.label_column: ("whole numbers, text, or lists of either", _is_label),
        config.split_column: ("text", _is_text),
    }
    for column, (types, is_allowed) in allowed.items():
        if column in schema.names and not is_allowed(schema.field(column).type):
            raise SchnRayError(
                f"{path}: column '{column}' holds {schema.field(column).type}; expected {types}"
            )


def check_image(path: str, schema: pa.Schema, column: str) -> None:
    """Refuse a table without a column of images.

    Args:
        path: the table's file, for messages.
        schema: the table's columns and types.
        column: the column with the images or their paths.

    Raises:
        SchnRayError: no such column, with those that exist; or a column of another type.
    """
    if column not in schema.names:
        raise SchnRayError(
            f"{path}: no column '{column}'{nearest(column, schema.names) or '.'} There are: "
            f"{', '.join(schema.names)}; name the column of images with "
            "--set source.image_column=NAME, or that of vectors with source.vector_column=NAME"
        )
    kind = schema.field(column).type
    if pt.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pt.is_binary(kind) or pt.is_large_binary(kind) or _is_text(kind)):
        raise SchnRayError(
            f"{path}: column '{column}' holds {kind}; expected the encoded images as binary, or "
            "their paths as text"
        )


def _is_text(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_null(kind)


def _is_name(kind: pa.DataType) -> bool:
    return _is_text(kind) or pt.is_integer(kind)


def _is_label(kind: pa.DataType) -> bool:
    if isinstance(kind, (pa.ListType, pa.LargeListType)):
        kind = kind.value_type
    return _is_name(kind)
