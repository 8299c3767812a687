"""The columns of tables under the names that hubs give them, and their classes' names."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from schn_ray.data.config import SourceConfig

IMAGES, LABELS = ("image", "img"), ("label", "labels", "category")
PATHS = ("path", "file_name", "filename", "file", *IMAGES)
_DEFAULTS = SourceConfig()


def with_usual_columns(names: Collection[str], config: SourceConfig) -> SourceConfig:
    """Return the config with the columns that a table has, where it names the default ones.

    Args:
        names: of the table's columns.
        config: may name others, which are left.

    Example:
        >>> with_usual_columns(["img", "category"], SourceConfig()).label_column
        'category'
    """
    changes = {}
    usual = ("image_column", IMAGES), ("label_column", LABELS), ("path_column", PATHS)
    for field, candidates in usual:
        present = [name for name in candidates if name in names]
        if getattr(config, field) == getattr(_DEFAULTS, field) and present:
            changes[field] = present[0]
    return config.model_copy(update=changes)


def hub_features(schema: pa.Schema) -> dict[str, Any]:
    """Return what Hugging Face's ``datasets`` says of the columns of a table that it wrote.

    Args:
        schema: of the table, with its metadata.
    """
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(metadata.get("info", {}).get("features") or {})
    except (ValueError, AttributeError, TypeError):
        return {}


def class_names_of(feature: Any) -> tuple[str, ...]:
    """Return the names of a ``ClassLabel``, or of one in a list; none for another column.

    Args:
        feature: of a column, as ``datasets`` writes it.

    Example:
        >>> class_names_of({"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}})
        ('cat', 'dog')
    """
    while isinstance(feature, (dict, list)) and feature:
        if isinstance(feature, list):
            feature = feature[0]
        elif "names" in feature:
            return tuple(map(str, feature["names"]))
        else:
            feature = feature.get("feature")
    return ()
