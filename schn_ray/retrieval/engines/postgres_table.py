"""PostgreSQL with pgvector: ``codes.sql``, which psql runs; it makes and fills the table ``codes``.

The rows are in COPY's text format and not in CSV: there, each line break within a value is escaped,
so no id or path can end the data and be run as a command.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schn_ray.core.atomic_files import FileWriter
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.index.scan import Bytes

FILE = "codes.sql"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}  # the backslash first
_TEXT = pa.large_string()
_LONGEST_ID = 2600  # bytes; a third of a page of PostgreSQL's index, less its header
_MOST_BITS = 83_886_080  # of PostgreSQL's type bit


def bit_strings(codes: Bytes, bits: int) -> pa.StringArray:
    """Return codes as strings of 0 and 1; bit b is character b.

    Args:
        codes: uint8 [n, ceil(bits / 8)], packed.
        bits: of a code.

    Example:
        >>> bit_strings(np.array([[5, 1]], np.uint8), 10).to_pylist()
        ['1010000010']
    """
    ones = np.unpackbits(codes, axis=1, count=bits, bitorder="little") + np.uint8(ord("0"))
    starts = np.arange(len(codes) + 1, dtype=np.int64) * bits
    buffers = [pa.py_buffer(starts), pa.py_buffer(np.ascontiguousarray(ones))]
    return pa.LargeStringArray.from_buffers(len(codes), *buffers)


def copy_lines(batch: RowBatch, bits: int) -> bytes:
    """Return rows in the text format of COPY.

    Args:
        batch: the rows.
        bits: of a code.

    Raises:
        SchnRayError: a text has a zero byte, which PostgreSQL does not take.
    """
    columns = [_escaped(batch.ids), _escaped(batch.uris), bit_strings(batch.codes, bits)]
    if batch.labels is not None:
        columns.append(_escaped(_array_literals(batch.labels)))
    lines = _joined(_joined(*columns, by="\t"), "\n")
    return "".join(lines.to_pylist()).encode()


def _array_literals(labels: pa.ListArray) -> pa.LargeStringArray:
    """Return lists of strings as PostgreSQL writes arrays: ``{"a","b"}``."""
    names = pc.replace_substring(labels.flatten(), "\\", "\\\\")
    quoted = _joined('"', pc.replace_substring(names, '"', '\\"'), '"')
    starts = pa.array(np.append(0, np.cumsum(labels.value_lengths().to_numpy())), pa.int64())
    lists = pa.LargeListArray.from_arrays(starts, quoted)
    return _joined("{", pc.binary_join(lists, pa.scalar(",", _TEXT)), "}")


def _joined(*parts: pa.Array | str, by: str = "") -> pa.LargeStringArray:
    """Join columns and constants, row by row."""
    texts = [part if isinstance(part, str) else part.cast(_TEXT) for part in parts]
    scalars = [pa.scalar(text, _TEXT) if isinstance(text, str) else text for text in texts]
    return pc.binary_join_element_wise(*scalars, pa.scalar(by, _TEXT))


def _escaped(texts: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring(texts, "\0")).as_py():
        raise SchnRayError("an id, a path or a label has a zero byte, which PostgreSQL refuses")
    for character, escape in _ESCAPES.items():
        texts = pc.replace_substring(texts, character, escape)
    return texts


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    labels = gallery.store is not None
    names = "id, uri, code, labels" if labels else "id, uri, code"
    with FileWriter(folder / FILE) as file:
        file.write(
            f"""BEGIN;
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE codes (
    id text PRIMARY KEY,
    uri text NOT NULL,
    code bit({gallery.bits}) NOT NULL{", labels text[] NOT NULL" if labels else ""}
);
COPY codes ({names}) FROM stdin;
""".encode()
        )
        for batch in batches:
            file.write(copy_lines(batch, gallery.bits))
        file.write(b"\\.\nCOMMIT;\n")


def _recipe(target: Target) -> str:
    return f"""-- load: psql -v ON_ERROR_STOP=1 -f {shlex.quote(target.out)}/{FILE}
-- query: 0 and 1, of query uint8 [n, {target.width}], as in Python
--   "".join(map(str, numpy.unpackbits(query[0], count={target.bits}, bitorder="little")))
-- psql -v query=0110...
SELECT id, code <~> :'query'::bit({target.bits}) AS distance
FROM codes ORDER BY distance LIMIT 10;"""


PGVECTOR = Engine(
    _write, _recipe, language="sql", unit=1, most_bits=_MOST_BITS, longest_id=_LONGEST_ID
)
