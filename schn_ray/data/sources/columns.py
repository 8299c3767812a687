"""What the columns of a table mean: an image as bytes or a path, its id, labels, split, camera."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row
from schn_ray.data.sources.listing import fetch_listed
from schn_ray.data.sources.roots import Root

CAMERA = "camera"


def wanted_columns(names: list[str], config: SourceConfig) -> list[str]:
    """Return those of a table's columns that rows are made of."""
    wanted = (config.id_column, config.image_column, config.label_column, config.split_column)
    return [name for name in (*wanted, CAMERA) if name in names]


def row_uri(path: str, row: int, column: str) -> str:
    """Name one image: ``path#row``, and ``:column`` where that is not called ``image``."""
    return f"{path}#{row}" + ("" if column == "image" else f":{column}")


def row_of(
    values: dict[str, Any], default_id: str, uri: str, root: Root, config: SourceConfig
) -> Row | BadRow:
    """Make a row of a table's values by column; paths of images are looked up below ``root``."""
    row_id = values.get(config.id_column, default_id)
    if row_id is None:
        return BadRow(default_id, uri, "read", f"no id: column '{config.id_column}' is null")
    row_id = str(row_id)
    image = values[config.image_column]
    if isinstance(image, dict):
        image = image["bytes"]
    if image is None:
        return BadRow(row_id, uri, "read", f"no image: '{config.image_column}' is null")
    if isinstance(image, str):
        fetched = fetch_listed(root, image, row_id)
        if isinstance(fetched, BadRow):
            return fetched
        uri, image = fetched
    labels = values.get(config.label_column)
    several = labels if isinstance(labels, list) else [] if labels is None else [labels]
    if any(label is None or label == "" for label in several):
        return BadRow(row_id, uri, "read", f"an empty label in '{config.label_column}'")
    split, camera = values.get(config.split_column), values.get(CAMERA)
    names = tuple(dict.fromkeys(map(str, several)))
    return Row(
        row_id,
        image,
        names,
        uri,
        None if split is None else str(split),
        camera if isinstance(camera, int) else -1,
    )


def image_bytes(value: Any, path: str, row: int) -> bytes:
    """Return an image's bytes from a value of its column.

    Raises:
        SchnRayError: there are none.
    """
    image = value["bytes"] if isinstance(value, dict) else value
    if image is None:
        raise SchnRayError(f"{path}: row {row} has no image")
    return bytes(image)


def check_columns(path: str, schema: pa.Schema, config: SourceConfig) -> None:
    """Refuse a table whose columns are missing or of another type.

    Raises:
        SchnRayError: with what was found and what was wanted.
    """
    check_image(path, schema, config.image_column)
    wanted = {
        config.id_column: ("text or whole numbers", _is_name),
        config.label_column: ("whole numbers, text, or lists of either", _is_label),
        config.split_column: ("text", _is_text),
    }
    for column, (what, is_right) in wanted.items():
        if column in schema.names and not is_right(schema.field(column).type):
            raise SchnRayError(
                f"{path}: column '{column}' holds {schema.field(column).type}; wanted {what}"
            )


def check_image(path: str, schema: pa.Schema, column: str) -> None:
    """Refuse a table without a column of images.

    Raises:
        SchnRayError: with the columns that there are.
    """
    if column not in schema.names:
        raise SchnRayError(
            f"{path}: no column '{column}'{nearest(column, schema.names)} There are: "
            f"{', '.join(schema.names)}; say which holds the images with "
            "--set source.image_column=NAME"
        )
    found = schema.field(column).type
    if pt.is_struct(found) and found.get_field_index("bytes") >= 0:
        found = found.field("bytes").type
    if not (pt.is_binary(found) or pt.is_large_binary(found) or _is_text(found)):
        raise SchnRayError(
            f"{path}: column '{column}' holds {found}; wanted the encoded images as binary, or "
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
