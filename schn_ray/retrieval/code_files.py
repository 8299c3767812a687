"""The part files that ``encode`` writes: the codes of a shard's images.

A part is a Parquet file with ``id``, ``uri``, ``code``, ``sha256`` (of the encoded image) and, on
request, ``relaxed`` (float16 [K]) and ``features`` (int8 [d], see ``index.vectors``). Parts have a
folder of their own, ``data/``, so that whatever reads a folder of Parquet files reads it as it is.
Receipts are in ``receipts/`` beside it, see ``data.shards.part_files``.
"""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import read_verified
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.cache import manifest_at
from schn_ray.core.storage.files import as_location, join, kind_at, open_file
from schn_ray.data.shards.receipts import ID, URI

CODE, SHA256, RELAXED, FEATURES = "code", "sha256", "relaxed", "features"
DATA = "data"
PARTS = f"{DATA}/part-*.parquet"


def code_column(packed: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Return packed codes as an Arrow column, without a copy where they are contiguous.

    Args:
        packed: uint8 [n, w].
    """
    data = np.ascontiguousarray(packed)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(data.shape[1]), len(data), [None, pa.py_buffer(data)]
    )


def packed_codes(table: pa.Table, column: str = CODE) -> NDArray[np.uint8]:
    """Return a table's column ``code``, or another of fixed size, as uint8 [n, w].

    Args:
        table: such as a part.
        column: name of a column of w bytes a row.

    Example:
        >>> table = pa.table({"code": code_column(np.array([[1, 2], [3, 4]], np.uint8))})
        >>> packed_codes(table.slice(1)).tolist()
        [[3, 4]]
    """
    codes = table[column].combine_chunks()
    width = codes.type.byte_width
    if not len(codes):
        return np.zeros((0, width), np.uint8)  # its buffer may be missing
    packed = np.frombuffer(codes.buffers()[1], np.uint8, len(codes) * width, codes.offset * width)
    return packed.reshape(len(codes), width)


@dataclass(frozen=True)
class CodeFiles:
    """The ``PartFormat`` of codes: ``data/part-00000.parquet`` and so on."""

    stem: str = "part-"
    suffix: str = ".parquet"
    folder: str = DATA

    def write(self, path: Path, batches: Iterable[pa.RecordBatch]) -> None:
        """Write all rows of a part as one row group; there must be at least one batch."""
        pq.write_table(pa.Table.from_batches(batches).combine_chunks(), path)

    def read(self, location: str, columns: Sequence[str] | None) -> pa.Table:
        """Read these columns of a part."""
        with open_file(location) as file:
            return pq.read_table(file, columns=None if columns is None else list(columns))


def code_batch(
    ids: Sequence[str],
    uris: Sequence[str],
    packed: NDArray[np.uint8],
    sha256: NDArray[np.uint8],
    relaxed: NDArray[np.float16],
    features: NDArray[np.int8] | None = None,
) -> pa.RecordBatch:
    """Return the rows of a part.

    Args:
        ids: [n].
        uris: [n].
        packed: uint8 [n, ceil(K / 8)].
        sha256: uint8 [n, 32], of the encoded images.
        relaxed: float16 [n, K], or [n, 0] to leave the column out.
        features: int8 [n, d]; [n, 0] or None to leave the column out.
    """
    columns = {
        ID: pa.array(ids, pa.string()),
        URI: pa.array(uris, pa.string()),
        CODE: code_column(packed),
        SHA256: code_column(sha256),
    }
    if relaxed.shape[1]:
        flat = pa.array(relaxed.reshape(-1), pa.float16())
        columns[RELAXED] = pa.FixedSizeListArray.from_arrays(flat, relaxed.shape[1])
    if features is not None and features.shape[1]:
        columns[FEATURES] = code_column(features.view(np.uint8))
    return pa.record_batch(columns)


def relaxed_codes(table: pa.Table) -> NDArray[np.float16]:
    """Return a table's relaxed codes, float16 [n, K], or [n, 0] where it has none.

    Args:
        table: such as a part.
    """
    if RELAXED not in table.column_names:
        return np.zeros((len(table), 0), np.float16)
    column = table[RELAXED].combine_chunks()
    relaxed: NDArray[np.float16] = column.flatten().to_numpy()
    return relaxed.reshape(len(table), column.type.list_size)


def code_features(table: pa.Table) -> NDArray[np.int8]:
    """Return a table's features, int8 [n, d], or [n, 0] where it has none.

    Args:
        table: such as a part.
    """
    if FEATURES not in table.column_names:
        return np.zeros((len(table), 0), np.int8)
    return packed_codes(table, FEATURES).view(np.int8)


def part_names(files: Iterable[str], pattern: str = PARTS) -> list[str]:
    """Return the names of the parts among a directory's files, in the order of their numbers.

    Args:
        files: names, such as ``Manifest.files``.
        pattern: of the parts' names.
    """
    return sorted(fnmatch.filter(files, pattern), key=lambda name: (len(name), name))


def read_codes(
    out: Path | str, files: Mapping[str, tuple[str, int]] | None = None
) -> tuple[pa.Table, NDArray[np.uint8]]:
    """Read all parts in order; each is compared with its SHA-256.

    Args:
        out: a finished directory of codes, or its URI.
        files: name -> SHA-256 and size of the files of a directory without a manifest, from
            whoever wrote them.

    Returns:
        A table of id and uri, and the packed codes [n, ceil(K / 8)].

    Raises:
        SchnRayError: it is not finished, there is no part, or one differs from what was written.
    """
    if files is None:
        table = read_tables(out, "codes", PARTS)
    else:
        hashes = {name: sha256 for name, (sha256, _) in files.items()}
        table = _read_parts(as_location(out), hashes, "codes", PARTS)
    return table.select([ID, URI]), packed_codes(table)


def read_tables(out: Path | str, kind: str, pattern: str) -> pa.Table:
    """Read Parquet files of a finished directory as one table, each compared with its SHA-256.

    Args:
        out: the directory, or its URI.
        kind: of the directory.
        pattern: of the files' names, such as ``PARTS``.

    Raises:
        SchnRayError: it is not finished, there is no such file, or one differs from what was
            written.
    """
    location = as_location(out)
    if not kind_at(join(location, MANIFEST)):
        raise SchnRayError(f"{out} is no finished directory of {kind}: it has no {MANIFEST}")
    hashes = manifest_at(location, kind).files
    return _read_parts(location, hashes, kind, pattern)


def _read_parts(location: str, hashes: Mapping[str, str], kind: str, pattern: str) -> pa.Table:
    names = part_names(hashes, pattern)
    if not names:
        raise SchnRayError(f"{location} has no {pattern}")
    parts = (read_verified(join(location, name), hashes[name], kind) for name in names)
    return pa.concat_tables(pq.read_table(io.BytesIO(part)) for part in parts)
