"""The column of vectors in a table: how it is recognised, and how many rows are read at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.vectors import (
    NULL,
    NULL_INSIDE,
    VectorFormat,
    VectorRows,
    arrow_vectors,
    numpy_type,
    problems_of,
    stored_type,
    vector_rows,
    width_problem,
)
from schn_ray.data.sources.columns import CAMERA, NO_CLASS, empty_label, label_problem, no_id

USUAL_NAMES = ("embedding", "embeddings", "vector", "vectors", "feature", "features")
_NUMBERS = "lists of float16, float32, float64 or int8"


def list_type(kind: pa.DataType) -> Any:
    """Return the list type of a column of lists; None for other columns.

    Args:
        kind: of the column; an extension type such as a tensor's counts as what it is stored as.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return kind if is_list else None


def as_lists(column: pa.Array) -> pa.Array:
    """Return a column of lists; a tensor's is unwrapped.

    Args:
        column: of a type for which ``list_type`` is not None.
    """
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def find_vector_column(path: str, schema: pa.Schema, config: SourceConfig) -> str | None:
    """Return the name of the column of vectors; None if only images are to be read.

    A column of the usual names is recognised. Without a column of images, the only one with lists
    of numbers is taken, whatever its name.

    Args:
        path: the table's file, for messages.
        schema: the table's columns and types.
        config: may name the column; an empty name is for none.

    Raises:
        SchnRayError: no such column, one of another type, or two that might be meant.
    """
    used = (config.id_column, config.image_column, config.label_column, config.split_column)
    candidates = [
        field.name for field in schema if field.name not in used and _has_vectors(field.type)
    ]
    if config.vector_column is not None:
        return _named(path, schema, config.vector_column, candidates)
    usual = [name for name in candidates if name.lower() in USUAL_NAMES]
    has_images = config.image_column in schema.names
    choice = usual if usual or has_images else candidates
    if len(choice) > 1:
        images = "; '' for images alone" if has_images else ""
        raise SchnRayError(
            f"{path}: the vectors may be in {' or '.join(choice)}; choose a column with --set "
            f"source.vector_column=NAME{images}"
        )
    return choice[0] if choice else None


def vectors_in(column: pa.Array, vectors: VectorFormat) -> tuple[NDArray[Any], dict[int, str]]:
    """Return the vectors of a column, and which of its rows cannot be used.

    Args:
        column: [n] lists of numbers.
        vectors: the format to return.

    Returns:
        [n, D] in that format, with zeros for lists of another width; and position -> reason.
    """
    lists = as_lists(column)
    lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    lengths = np.where(lists.is_valid().to_numpy(zero_copy_only=False), lengths, -1)
    right = lengths == vectors.width
    values = (lists if right.all() else lists.filter(pa.array(right))).flatten()
    data = np.frombuffer(values.buffers()[1] or b"", numpy_type(values.type))
    with np.errstate(over="ignore"):  # a number that float32 does not have becomes infinite
        X = data[values.offset : values.offset + len(values)].reshape(-1, vectors.width)
        X = X.astype(vectors.dtype, copy=False)
    rows = np.flatnonzero(right)
    problems = {int(rows[row]): reason for row, reason in problems_of(X).items()}
    if values.null_count:
        is_null = values.is_null().to_numpy(zero_copy_only=False).reshape(X.shape).any(axis=1)
        problems |= {int(row): NULL_INSIDE for row in rows[is_null]}
    problems |= {
        int(row): width_problem(int(lengths[row]), vectors.width) if lengths[row] >= 0 else NULL
        for row in np.flatnonzero(~right)
    }
    if right.all():
        return X, problems
    padded = np.zeros((len(lists), vectors.width), vectors.dtype)
    padded[right] = X
    return padded, problems


def rows_of_vectors(
    table: pa.RecordBatch,
    vectors: VectorFormat,
    vector_column: str,
    config: SourceConfig,
    class_names: tuple[str, ...],
    numbers: NDArray[np.int64],
    id_stem: str,
    uri_stem: str,
    split: str | None = None,
) -> VectorRows:
    """Build rows of vectors of a table's columns.

    Args:
        table: [n] rows.
        vectors: format of the vectors.
        vector_column: where they are.
        config: names the other columns.
        class_names: names of labels that are numbers.
        numbers: [n] number of each row in its file.
        id_stem: put before a row's number, where there is no column of ids.
        uri_stem: put before a row's number.
        split: role of rows where no column has it.
    """
    X, problems = vectors_in(table[vector_column], vectors)
    names, n = table.schema.names, len(table)
    ids = default_ids = numbered(id_stem, numbers)
    if config.id_column in names:
        ids, id_problems = _ids(table[config.id_column], default_ids, config.id_column)
        problems |= id_problems
    column = table[config.label_column] if config.label_column in names else None
    labels, label_problems = label_lists(column, n, class_names, config.label_column)
    columns = {
        "id": ids,
        "labels": labels,
        "split": pa.repeat(pa.scalar(split, pa.string()), n),
        "uri": numbered(uri_stem, numbers),
        "vector": arrow_vectors(X),
    }
    if config.split_column in names:
        columns["split"] = (
            table[config.split_column].cast(pa.string()).fill_null(pa.scalar(split, pa.string()))
        )
    if CAMERA in names and pt.is_integer(table[CAMERA].type):
        columns["camera"], camera_problems = _cameras(table[CAMERA])
        problems |= camera_problems
    return vector_rows(columns, label_problems | problems, vectors)


def numbered(stem: str, numbers: NDArray[np.int64]) -> pa.Array:
    """Return a text followed by each number, as a column.

    Args:
        stem: the text.
        numbers: [n] whole numbers.

    Example:
        >>> numbered("a.npy#", np.array([7, 8])).to_pylist()
        ['a.npy#7', 'a.npy#8']
    """
    return pc.binary_join_element_wise(stem, pa.array(numbers).cast(pa.string()), "")


def no_labels(n: int) -> pa.Array:
    """Return a column of empty lists of labels.

    Args:
        n: how many rows.
    """
    return pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.string()))


def label_lists(
    column: pa.Array | None, n: int, class_names: tuple[str, ...], name: str
) -> tuple[pa.Array, dict[int, str]]:
    """Return the labels of rows as lists of names, and which rows have a label that is wrong.

    Args:
        column: [n] numbers, texts, or lists of either; None if rows have no labels.
        n: how many rows.
        class_names: names of labels that are numbers.
        name: of the column, for the reasons.
    """
    lists = pa.list_(pa.string())
    if column is None or pt.is_null(column.type):
        return no_labels(n), {}
    if list_type(column.type) is None:
        texts = column.cast(pa.string())
        distinct = {
            text: _named_labels(None if text is None else [text], class_names, name)
            for text in texts.unique().to_pylist()
        }
        if not any(problem for _, problem in distinct.values()):
            return _single_labels(texts, distinct), {}
        rows = [distinct[text] for text in texts.to_pylist()]
    else:
        rows = [_named_labels(values, class_names, name) for values in column.to_pylist()]
    problems = {row: problem for row, (_, problem) in enumerate(rows) if problem}
    return pa.array([labels for labels, _ in rows], lists), problems


def _single_labels(texts: pa.Array, distinct: dict[str | None, tuple[list[str], str]]) -> pa.Array:
    names = pa.array(
        [labels[0] if labels else None for labels, _ in distinct.values()], pa.string()
    )
    coded = texts.dictionary_encode(null_encoding="encode").indices
    chosen = names.take(coded)
    counts = chosen.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    return pa.ListArray.from_arrays(pa.array(offsets), chosen.drop_null())


def _named_labels(
    values: list[Any] | None, class_names: tuple[str, ...], name: str
) -> tuple[list[str], str]:
    """Return one row's labels, sorted, or what is wrong with them."""
    labels = values or []
    if empty_label(labels):
        return [], f"an empty label in '{name}'"
    texts = list(dict.fromkeys(map(str, labels)))
    if class_names:
        texts = [text for text in texts if text != NO_CLASS]
        if problem := label_problem(texts, class_names, name):
            return [], problem
        texts = [class_names[int(text)] for text in texts]
    return sorted(texts), ""


def _ids(column: pa.Array, default_ids: pa.Array, name: str) -> tuple[pa.Array, dict[int, str]]:
    """Return a column of ids as texts, and which of them are null or not UTF-8."""
    ids, not_text = column.cast(pa.string()), []
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        values = ids.cast(pa.binary()).to_pylist()
        not_text = [row for row, value in enumerate(values) if not _is_text(value)]
        good = np.isin(np.arange(len(values)), not_text, invert=True)
        ids = pa.array(values, pa.binary(), mask=~good).cast(pa.string())
    nulls = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
    problems = {int(row): no_id(name) for row in nulls}
    problems |= dict.fromkeys(not_text, f"its id in '{name}' is not UTF-8")
    return (pc.coalesce(ids, default_ids) if len(nulls) else ids), problems


def _cameras(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    numbers = column.fill_null(-1 if pt.is_signed_integer(column.type) else 0).to_numpy()
    unknown = column.is_null().to_numpy(zero_copy_only=False)
    outside = (numbers > np.iinfo(np.int32).max) | (numbers < np.iinfo(np.int32).min)
    cameras = np.where(outside | unknown, -1, numbers).astype(np.int32)
    rows = np.flatnonzero(outside)
    return pa.array(cameras), {int(row): f"no camera has the number {numbers[row]}" for row in rows}


def _is_text(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode() or True)
    except UnicodeDecodeError:
        return False


def _has_vectors(kind: pa.DataType) -> bool:
    lists = list_type(kind)
    return lists is not None and stored_type(lists.value_type) is not None


def _named(path: str, schema: pa.Schema, name: str, candidates: list[str]) -> str | None:
    if name == "":
        return None
    known = f"There are: {', '.join(candidates) or 'none'}"
    if name not in schema.names:
        raise SchnRayError(
            f"{path}: no column '{name}' of vectors{nearest(name, candidates) or '.'} {known}"
        )
    if name not in candidates:
        raise SchnRayError(
            f"{path}: column '{name}' holds {schema.field(name).type}; expected {_NUMBERS}. {known}"
        )
    return name
