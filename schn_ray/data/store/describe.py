"""What is known when all rows of a store are written: vocabulary, labels, split and its audit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from schn_ray.core.atomic_files import write_json
from schn_ray.core.memory import give_back_freed_memory
from schn_ray.data.config import PrepareConfig
from schn_ray.data.labels import label_sets
from schn_ray.data.shards.equal_rows import first_with_hash
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.sources.stored import CLASSES
from schn_ray.data.splits.audit import audit
from schn_ray.data.splits.given import read_given
from schn_ray.data.splits.protocols import (
    RANDOM,
    STABLE,
    UNLABELLED,
    Rows,
    Split,
    check_given,
    find_protocol,
    most_frequent,
    split,
)
from schn_ray.data.splits.stable import stable_split

SPLIT = "split.parquet"
_AT_ONCE = 1 << 14  # rows
_SPLIT = pa.schema({"role": pa.string(), "row": pa.int64(), "id": pa.string()})


def describe_and_split(
    parts: PartFiles, numbers: Sequence[int], directory: Path, config: PrepareConfig
) -> dict[str, Any]:
    """Write the vocabulary and the split of a store's rows.

    Args:
        parts: the files of rows.
        numbers: of the parts, in the order of the rows.
        directory: local, for ``classes.json`` and ``split.parquet``.
        config: which protocol, which seed; or the file of a given split.

    Returns:
        What was counted, for the manifest; with ``protocol`` if it was chosen because no row has a
        label.

    Raises:
        SchnRayError: these rows do not make the split.
    """
    columns = ["id", "labels", "split", "sha256"]
    table = pa.concat_tables([parts.read(number, columns) for number in numbers])
    classes = vocabulary(table["labels"])
    chosen = {}
    if len(table) and not classes and (config.protocol, config.split_from) == (RANDOM, None):
        config = config.model_copy(update={"protocol": UNLABELLED})
        chosen = {"protocol": UNLABELLED}
    protocol = find_protocol(config.protocol)
    labels = multi_hot_matrix(table["labels"], classes)
    if protocol.most_frequent is not None:
        frequent = most_frequent(labels, protocol.most_frequent)
        classes, labels = tuple(classes[c] for c in frequent), labels[:, frequent]
    write_json(directory / CLASSES, classes)
    label_set_count, unlabelled = _distinct_label_sets(labels), np.diff(labels.indptr) == 0
    give_back_freed_memory()  # else the next stage needs its memory in addition
    image_of = first_with_hash(table["sha256"]) if protocol.draw == STABLE else None
    if config.split_from is None and image_of is not None:
        roles = stable_split(labels, table["id"], table["sha256"], image_of, config)
    elif config.split_from is None:
        roles = split(labels, classes, table["split"], config)
    else:
        roles = read_given(Path(config.split_from), table["id"])
        check_given(config.protocol, roles, classes)
    del labels
    give_back_freed_memory()
    _write_split(directory / SPLIT, roles, table["id"])
    give_back_freed_memory()
    if image_of is None:  # not before: the next stage needed its memory
        image_of = first_with_hash(table["sha256"])
    compared = protocol if protocol.draw == UNLABELLED else None
    findings = audit(roles, table["id"], image_of, unlabelled, compared).summary()
    return chosen | {
        "rows": len(table),
        "classes": len(classes),
        "label_sets": label_set_count,
        "unlabelled": int(unlabelled.sum()),
        "repeated_images": int((image_of != np.arange(len(table))).sum()),
        **{role: len(rows) for role, rows in roles.items()},
        "audit": "; ".join(findings) or "nothing found",
    }


def vocabulary(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the distinct labels of rows in natural order: ``10`` after ``9``.

    Args:
        labels: [n] lists of names.

    Example:
        >>> vocabulary(pa.chunked_array([[["b10", "b9"], [], ["b9", "a"]]]))
        ('a', 'b9', 'b10')
    """
    return tuple(sorted(pc.unique(pc.list_flatten(labels)).to_pylist(), key=_natural_order))


def multi_hot_matrix(labels: pa.ChunkedArray, classes: Sequence[str]) -> csr_array[Any]:
    """Return rows' labels as a sparse matrix [n, C] of 0 and 1, uint8.

    Args:
        labels: [n] lists of names; those that are not in ``classes`` are left out.
        classes: C names, of the columns.

    Example:
        >>> labels = pa.chunked_array([[["b", "a", "x"], [], ["b"]]])
        >>> multi_hot_matrix(labels, ["a", "b"]).toarray().tolist()
        [[1, 1], [0, 0], [0, 1]]
    """
    known = pa.array(classes, pa.string())
    pieces = [_known_labels(chunk, known) for chunk in labels.chunks]
    columns = np.concatenate([np.zeros(0, np.int32), *(columns for columns, _ in pieces)])
    counts = np.concatenate([np.zeros(1, np.int32), *(counts for _, counts in pieces)])
    del pieces
    ones = np.ones(len(columns), np.uint8)
    matrix = csr_array((ones, columns, np.cumsum(counts)), shape=(len(labels), len(classes)))
    matrix.sort_indices()
    return matrix


def _known_labels(
    rows: pa.ListArray, known: pa.Array
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the numbers of rows' labels, one row after the other, and how many each has."""
    columns = pc.fill_null(pc.index_in(rows.flatten(), value_set=known), -1).to_numpy()
    lengths = rows.value_lengths().to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)[columns >= 0]
    return columns[columns >= 0], np.bincount(row, minlength=len(lengths)).astype(np.int32)


def _distinct_label_sets(labels: csr_array[Any]) -> int:
    starts = range(0, max(labels.shape[0], 1), _AT_ONCE)
    blocks = [label_sets(labels[start : start + _AT_ONCE]).sets for start in starts]
    return int(label_sets(vstack(blocks, format="csr")).sets.shape[0])


def _write_split(path: Path, roles: Split, ids: pa.ChunkedArray) -> None:
    with pq.ParquetWriter(path, _SPLIT) as writer:
        for role, rows in roles.items():
            for start in range(0, len(rows), _AT_ONCE):
                chunk = rows[start : start + _AT_ONCE]
                names = pa.repeat(role, len(chunk))
                writer.write_table(pa.table([names, chunk, _taken(ids, chunk)], _SPLIT))


def _taken(column: pa.ChunkedArray, rows: Rows) -> pa.ChunkedArray:
    """Take ascending rows chunk by chunk; Arrow would copy the whole column first."""
    starts = np.cumsum([0, *map(len, column.chunks)])
    bounds = np.searchsorted(rows, starts)
    return pa.chunked_array(
        [
            chunk.take(pa.array(rows[begin:end] - start))
            for chunk, start, (begin, end) in zip(
                column.chunks, starts[:-1], pairwise(bounds), strict=True
            )
            if begin < end
        ],
        column.type,
    )


def _natural_order(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Key of a name: its runs of digits compare as numbers, however long."""
    parts: list[str | tuple[int, str]] = list(re.split("([0-9]+)", name))
    for i in range(1, len(parts), 2):
        digits = str(parts[i]).lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, name
