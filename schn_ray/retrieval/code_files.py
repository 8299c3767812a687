"""The part files that ``encode`` writes: codes of a shard's images, with their receipt inside.

A part is a Parquet file with ``id``, ``uri``, ``code``, ``sha256`` (of the encoded image) and, on
request, ``relaxed`` (float16). Its receipt, in the file's own metadata, says what became of every
unit of the source that the part answers for; so a part and its receipt appear together or not at
all, and what is left to do can always be seen from the parts alone.
"""

from __future__ import annotations

import fnmatch
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import (
    as_location,
    join,
    names_in,
    new_file,
    open_file,
    remove_file,
)
from schn_ray.data.shards.receipts import ID, URI, Receipt, plain, receipt_of

CODE, SHA256, RELAXED = "code", "sha256", "relaxed"


def code_column(packed: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Return packed codes [n, w] as an Arrow column, without a copy where they are contiguous."""
    data = np.ascontiguousarray(packed)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(data.shape[1]), len(data), [None, pa.py_buffer(data)]
    )


def packed_codes(table: pa.Table, column: str = CODE) -> NDArray[np.uint8]:
    """Return a table's column ``code``, or another of fixed size, as bytes [n, w].

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


PARTS = "part-*.parquet"
UNFINISHED = "*.partial"
_RECEIPT = b"schn-ray receipt"


@dataclass(frozen=True, eq=False)
class Codes:
    """Rows of a part.

    Attributes:
        ids: [n].
        uris: [n].
        packed: uint8 [n, ceil(K / 8)].
        sha256: uint8 [n, 32].
        relaxed: float16 [n, K], or [n, 0] where they are not kept.
    """

    ids: Sequence[str]
    uris: Sequence[str]
    packed: NDArray[np.uint8]
    sha256: NDArray[np.uint8]
    relaxed: NDArray[np.float16]

    def take(self, rows: NDArray[np.int64]) -> Codes:
        """Return these rows."""
        ids, uris = ([column[row] for row in rows] for column in (self.ids, self.uris))
        return Codes(ids, uris, self.packed[rows], self.sha256[rows], self.relaxed[rows])

    @staticmethod
    def concat(parts: Sequence[Codes]) -> Codes:
        """Put rows after each other."""
        return Codes(
            [row for part in parts for row in part.ids],
            [uri for part in parts for uri in part.uris],
            np.concatenate([part.packed for part in parts]),
            np.concatenate([part.sha256 for part in parts]),
            np.concatenate([part.relaxed for part in parts]),
        )


def part_path(out: str, number: int) -> str:
    """Return where a part lies."""
    return join(out, f"part-{number:05}.parquet")


def list_parts(out: Path | str) -> list[str]:
    """Return the places of all parts, in the order of their numbers."""
    location = as_location(out)
    return [join(location, name) for name in sorted(fnmatch.filter(names_in(location), PARTS))]


def write_part(out: str, codes: Codes, receipt: Receipt) -> None:
    """Write a part and its receipt, whole or not at all; an older one is replaced.

    Raises:
        SchnRayError: the disk is full or may not be written.
    """
    if len(codes.ids) != receipt.coded:
        raise AssertionError(f"{len(codes.ids)} codes for a receipt of {receipt.coded}")
    place = part_path(out, receipt.number)
    metadata = {_RECEIPT: _packed(receipt)}
    try:
        with new_file(place) as beside:
            pq.write_table(_table(codes).replace_schema_metadata(metadata), beside)
    except OSError as error:
        raise SchnRayError(
            f"cannot write {place}: {error.strerror or error}. The parts before it stay: make room "
            "and run the same command again"
        ) from error


def read_part(place: str) -> Codes:
    """Read the rows of a part.

    Raises:
        SchnRayError: a damaged file.
    """
    try:
        with open_file(place) as file:
            table = pq.read_table(file)
        relaxed = np.zeros((len(table), 0), np.float16)
        if RELAXED in table.column_names:
            column = table[RELAXED].combine_chunks()
            relaxed = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        ids, uris = table[ID].to_pylist(), table[URI].to_pylist()
        return Codes(ids, uris, packed_codes(table), packed_codes(table, SHA256), relaxed)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _damaged(place, error) from error


def read_code_receipts(out: str) -> dict[int, Receipt]:
    """Read the receipts of all parts, by number.

    Raises:
        SchnRayError: a damaged part.
    """
    receipts = [read_receipt(place) for place in list_parts(out)]
    return {receipt.number: receipt for receipt in receipts}


def remove_parts(out: str, numbers: Iterable[int]) -> None:
    """Remove parts of which nothing is left, and what killed workers left half-written."""
    for number in numbers:
        remove_file(part_path(out, number))
    for name in fnmatch.filter(names_in(out), UNFINISHED):
        remove_file(join(out, name))


def read_column(place: str, name: str) -> list[str]:
    """Read one column of a part."""
    with open_file(place) as file:
        return list(pq.read_table(file, columns=[name])[name].to_pylist())


def read_codes(out: Path | str) -> tuple[pa.Table, NDArray[np.uint8]]:
    """Read all parts in order -> (table of id and uri, packed codes [n, ceil(K / 8)]).

    Raises:
        SchnRayError: there is no part.
    """
    places = list_parts(out)
    if not places:
        raise SchnRayError(f"{out} holds no {PARTS}")
    table = pa.concat_tables(map(_codes_of, places))
    return table.select([ID, URI]), packed_codes(table)


def _codes_of(place: str) -> pa.Table:
    with open_file(place) as file:
        return pq.read_table(file, columns=[ID, URI, CODE]).replace_schema_metadata()


def _table(codes: Codes) -> pa.Table:
    columns = {
        ID: pa.array(codes.ids, pa.string()),
        URI: pa.array(codes.uris, pa.string()),
        CODE: code_column(codes.packed),
        SHA256: code_column(codes.sha256),
    }
    if codes.relaxed.shape[1]:
        flat = pa.array(codes.relaxed.reshape(-1), pa.float16())
        columns[RELAXED] = pa.FixedSizeListArray.from_arrays(flat, codes.relaxed.shape[1])
    return pa.table(columns)


def _packed(receipt: Receipt) -> bytes:
    # the names of 2,048 files are longer than their codes, and are in the column of ids as well
    return zlib.compress(json.dumps(plain(receipt)).encode())


def read_receipt(place: str) -> Receipt:
    """Read the receipt of one part.

    Raises:
        SchnRayError: a damaged part.
    """
    try:
        with open_file(place) as file:
            packed = pq.read_schema(file).metadata[_RECEIPT]
        return receipt_of(json.loads(zlib.decompress(packed)))
    except (OSError, KeyError, TypeError, ValueError, zlib.error, pa.ArrowException) as error:
        raise _damaged(place, error) from error


def _damaged(place: str, error: Exception) -> SchnRayError:
    return SchnRayError(
        f"{place} is damaged or not a part that encode wrote ({error}); remove this file and run "
        "encode --update: it codes what is missing"
    )
