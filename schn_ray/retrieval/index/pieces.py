"""Batches of rows, of codes or of an index, for ``build`` to make an index of."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.code_files import (
    CODE,
    RELAXED,
    SHA256,
    code_features,
    packed_codes,
    part_names,
    relaxed_codes,
)
from schn_ray.retrieval.index.contents import contents_of
from schn_ray.retrieval.index.index import Index, bytes_per_code
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.index.vectors import VECTORS, Int8, as_int8

_ROWS_AT_ONCE = 1 << 17
_VECTORS_AT_ONCE = 1 << 13
_COLUMNS = ("id", "uri", CODE)


class Piece(NamedTuple):
    """A batch of m rows.

    Attributes:
        ids: [m], without nulls.
        uris: [m], without nulls.
        codes: uint8 [m, w], packed.
        contents: uint8 [m, 16], the first bytes of SHA-256, zeros where it is not known.
        vectors: int8 [m, d] of each name that the index is built with.
    """

    ids: pa.LargeStringArray
    uris: pa.LargeStringArray
    codes: Bytes
    contents: Bytes
    vectors: tuple[Int8, ...] = ()


def pieces_of_codes(codes: Artefact, bits: int, vectors: Sequence[str] = ()) -> Iterator[Piece]:
    """Yield the rows of all parts; a part is compared with its SHA-256 as it is read.

    Args:
        codes: an opened ``codes`` directory.
        bits: of a code.
        vectors: names of vectors to read, which the codes have.

    Raises:
        SchnRayError: a part is damaged.
    """
    expected = pa.schema(
        [
            pa.field("id", pa.large_string(), nullable=False),
            pa.field("uri", pa.large_string()),
            pa.field(CODE, pa.binary(bytes_per_code(bits)), nullable=False),
        ]
    )
    for name in part_names(codes.manifest.files):
        try:
            with pq.ParquetFile(io.BytesIO(codes.read(name))) as part:
                digests = [SHA256] if SHA256 in part.schema_arrow.names else []
                columns = [*_COLUMNS, *digests, *vectors]
                for batch in part.iter_batches(_rows_at_once(vectors), columns=columns):
                    table = pa.Table.from_batches([batch])
                    numbers = tuple(_vectors_in(table, name) for name in vectors)
                    piece = _piece(table.select(_COLUMNS).cast(expected), contents_of(table))
                    yield piece._replace(vectors=numbers)
        except (ValueError, KeyError, pa.ArrowException) as error:
            raise SchnRayError(
                f"{codes.path}: not the codes that encode writes: {error}"
            ) from error


def _piece(table: pa.Table, contents: Bytes) -> Piece:
    for name in ("id", CODE):
        if table[name].null_count:
            raise ValueError(f"{name} is missing in {table[name].null_count} rows")
    ids, uris = (table[name].combine_chunks() for name in ("id", "uri"))
    return Piece(ids, uris.fill_null(""), packed_codes(table), contents)


def _vectors_in(table: pa.Table, name: str) -> Int8:
    if table[name].null_count:
        raise ValueError(f"{name} is missing in {table[name].null_count} rows")
    if name == RELAXED:
        return as_int8(relaxed_codes(table).astype(np.float32))
    return code_features(table)


def _rows_at_once(vectors: Sequence[str]) -> int:
    return _VECTORS_AT_ONCE if vectors else _ROWS_AT_ONCE


def pieces_of_index(
    index: Index, rows: NDArray[np.int64], vectors: Sequence[str] = ()
) -> Iterator[Piece]:
    """Yield rows of an index, in this order.

    Args:
        index: an opened index.
        rows: int64 [m], row numbers.
        vectors: names of vectors to read, which the index has.

    Raises:
        SchnRayError: the index is damaged.
    """
    ids, uris = (column.whole() for column in index.columns())
    at_once = _rows_at_once(vectors)
    for start in range(0, len(rows), at_once):
        chunk = rows[start : start + at_once]
        strings = ids.take(pa.array(chunk)), uris.take(pa.array(chunk))
        numbers = tuple(index.vectors(name, chunk) for name in vectors)
        yield Piece(*strings, index.codes(chunk), index.contents(chunk), numbers)


def known_vectors(vectors: Collection[str]) -> list[str]:
    """Return the names of vectors in order, each once.

    Args:
        vectors: as ``index --with`` has them.

    Raises:
        SchnRayError: one is unknown.
    """
    if unknown := sorted(set(vectors) - set(VECTORS)):
        raise SchnRayError(f"--with {unknown[0]} is unknown; expected {' or '.join(VECTORS)}")
    return [name for name in VECTORS if name in vectors]


def require_vectors(codes: Artefact, names: Sequence[str]) -> None:
    """Refuse codes that have not all vectors.

    Args:
        codes: an opened ``codes`` directory.
        names: of vectors.

    Raises:
        SchnRayError: one is missing.
    """
    for name in names:
        if not codes.manifest.config.get(name):
            raise SchnRayError(
                f"{codes.path} has no {name}: encode with --set {name}=true, then index with "
                f"--with {name}"
            )
