"""What the rows of a store come to: vocabulary, labels, duplicates, the split and its audit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.audit import audit, image_numbers
from schn_ray.config import PrepareConfig
from schn_ray.labels import label_sets
from schn_ray.manifest import write_json
from schn_ray.protocols import Split, check_given, find_protocol, most_frequent, split
from schn_ray.repeated import put_aside, repeated_ids, rows_without
from schn_ray.sources.stored import CLASSES
from schn_ray.store.files import read_rows, receipt_for, write_rows
from schn_ray.store.given import read_given
from schn_ray.store.shards import taken

SPLIT = "split.parquet"
_SPLIT = pa.schema({"role": pa.string(), "row": pa.int64(), "id": pa.string()})


def describe_and_split(
    store: str, numbers: Sequence[int], here: Path, config: PrepareConfig
) -> dict[str, Any]:
    """Write the vocabulary and the split of a store's rows; return what was counted.

    Args:
        store: where the rows are.
        numbers: of their files, in order.
        here: where to write.
        config: see there.

    Raises:
        SchnRayError: these rows do not make the split.
    """
    columns = ["id", "labels", "split", "sha256"]
    table = pa.concat_tables([read_rows(store, number, columns) for number in numbers])
    protocol = find_protocol(config.protocol)
    classes = vocabulary(table["labels"])
    labels = multi_hot(table["labels"], classes)
    if protocol.most_frequent is not None:
        kept = most_frequent(labels, protocol.most_frequent)
        classes, labels = tuple(classes[c] for c in kept), labels[:, kept]
    write_json(here / CLASSES, classes)
    ids, images = table["id"].combine_chunks(), image_numbers(as_digests(table["sha256"]))
    table = table.drop_columns(["id", "sha256"])
    if config.split_from is None:
        roles = split(labels, classes, table["split"].to_numpy(), config)
    else:
        roles = read_given(Path(config.split_from), ids)
        check_given(config.protocol, roles, classes)
    _write_split(here / SPLIT, roles, ids)
    findings = audit(roles, ids, images, labels).findings()
    return {
        "rows": len(table),
        "classes": len(classes),
        "label_sets": label_sets(labels).sets.shape[0],
        "unlabelled": int((np.diff(labels.indptr) == 0).sum()),
        "repeated_images": len(table) - len(np.unique(images)),
        **{role: len(rows) for role, rows in roles.items()},
        "audit": "; ".join(findings) or "nothing found",
    }


def set_duplicates_aside(store: str, numbers: Sequence[int]) -> None:
    """Take rows out whose id an earlier row has; killed in the middle, the next call goes on."""
    for number, rows in repeated_ids(numbers, partial(_column, store)):
        table, done = read_rows(store, number), receipt_for(store, number).done
        kept = taken(table, rows_without(len(table), rows))
        write_rows(store, number, kept, put_aside(done, rows))


def _column(store: str, number: int, name: str) -> list[str]:
    return list(read_rows(store, number, [name])[name].to_pylist())


def vocabulary(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the distinct labels of rows, sorted as people count: ``10`` after ``9``.

    >>> vocabulary(pa.chunked_array([[["b10", "b9"], [], ["b9", "a"]]]))
    ('a', 'b9', 'b10')
    """
    return tuple(sorted(pc.unique(pc.list_flatten(labels)).to_pylist(), key=_as_people_count))


def multi_hot(labels: pa.ChunkedArray, classes: Sequence[str]) -> csr_array[Any]:
    """Return rows' labels as a matrix [n, C] of 0 and 1, uint8; other labels do not count.

    >>> multi_hot(pa.chunked_array([[["b", "a", "x"], [], ["b"]]]), ["a", "b"]).toarray().tolist()
    [[1, 1], [0, 0], [0, 1]]
    """
    vocabulary = pa.array(classes, pa.string())
    columns = pc.fill_null(pc.index_in(pc.list_flatten(labels), value_set=vocabulary), -1)
    lengths = pc.list_value_length(labels).to_numpy()
    rows, known = np.repeat(np.arange(len(lengths)), lengths), columns.to_numpy() >= 0
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.bincount(rows[known], minlength=len(lengths)), out=starts[1:])
    kept = columns.to_numpy()[known]
    matrix = csr_array(
        (np.ones(len(kept), np.uint8), kept, starts), shape=(len(lengths), len(classes))
    )
    matrix.sort_indices()
    return matrix


def _write_split(path: Path, roles: Split, ids: pa.Array) -> None:
    rows = pa.array(np.concatenate(list(roles.values())))
    numbers = np.repeat(np.arange(len(roles), dtype=np.int8), [*map(len, roles.values())])
    names = pa.DictionaryArray.from_arrays(numbers, list(roles)).cast(pa.string())
    pq.write_table(pa.table([names, rows, ids.take(rows)], _SPLIT), path)


def as_digests(column: pa.ChunkedArray) -> NDArray[np.void]:
    """Return a column of hashes as an array: [n], 32 bytes each."""
    values = column.combine_chunks()
    data = np.frombuffer(values.buffers()[1], "V32")
    return data[values.offset : values.offset + len(values)]


def _as_people_count(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Key of a name: its runs of digits compare as numbers, however long."""
    parts: list[str | tuple[int, str]] = list(re.split("([0-9]+)", name))
    for i in range(1, len(parts), 2):
        digits = str(parts[i]).lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, name
