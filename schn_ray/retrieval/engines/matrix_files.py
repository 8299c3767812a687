"""FAISS and usearch: the codes as one matrix in the engine's file, the ids beside it by row number.

Both files are a header and the codes, row after row. They are written here without the engine, as
it would hold all codes in memory; the tests read them with the engine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from schn_ray.core.atomic_files import FileWriter
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.engines.parquet_file import write_rows

ROWS = "rows.parquet"  # id, uri and labels, in the order of the matrix
FAISS_FILE, USEARCH_FILE = "codes.faiss", "codes.bbin"
_FAISS_L2 = 1  # the metric that faiss writes for every binary index
_INT32 = (1 << 31) - 1


def faiss_header(bits: int, rows: int) -> bytes:
    """Return what comes before the codes in a file of faiss's ``IndexBinaryFlat``.

    Args:
        bits: of a code, a multiple of 8.
        rows: number of codes.

    Example:
        >>> import faiss
        >>> bytes(faiss.serialize_index_binary(faiss.IndexBinaryFlat(64))) == faiss_header(64, 0)
        True
    """
    width, trained = bits // 8, True
    # kind, bits, bytes of a code, rows, trained, metric; then the size of the vector of codes
    return struct.pack("<4siiq?iQ", b"IBxF", bits, width, rows, trained, _FAISS_L2, rows * width)


def _write_matrix(path: Path, header: bytes, batches: Iterator[RowBatch]) -> None:
    with FileWriter(path) as file:
        file.write(header)
        for batch in write_rows(path.with_name(ROWS), batches):
            file.write(batch.codes.tobytes())


def _write_faiss(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    header = faiss_header(-(-gallery.bits // 8) * 8, gallery.rows)
    _write_matrix(folder / FAISS_FILE, header, batches)


def _write_usearch(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    header = struct.pack("<ii", gallery.rows, -(-gallery.bits // 8))
    _write_matrix(folder / USEARCH_FILE, header, batches)


def _faiss_recipe(target: Target) -> str:
    return f"""import faiss
import pyarrow.parquet as pq

{target.query}
index = faiss.read_index_binary({target.quoted(FAISS_FILE)})
rows = pq.read_table({target.quoted(ROWS)})
distances, numbers = index.search(query, 10)
nearest = rows.take(numbers[0])"""


def _usearch_recipe(target: Target) -> str:
    return f"""import pyarrow.parquet as pq
from usearch.index import MetricKind, search
from usearch.io import load_matrix

{target.query}
codes = load_matrix({target.quoted(USEARCH_FILE)}, view=True)
rows = pq.read_table({target.quoted(ROWS)})
matches = search(codes, query[0], 10, MetricKind.Hamming, exact=True)
nearest = rows.take(matches.keys)"""


FAISS = Engine(_write_faiss, _faiss_recipe)
USEARCH = Engine(_write_usearch, _usearch_recipe, most_rows=_INT32)
