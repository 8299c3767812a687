"""Codes as encode writes them, drawn at random, and an index of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.directories import new_directory
from schn_ray.retrieval.code_files import code_column
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.column_file import ColumnFile
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.vectors import as_int8

Codes = NDArray[np.uint8]


def draw_codes(rng: np.random.Generator, n: int, bits: int, distinct: int) -> Codes:
    """Draw n packed codes; at most ``distinct`` differ, half of them by few bits."""
    ones = rng.random((distinct, bits)) < rng.choice([0.5, 0.02], (distinct, 1))
    pool = np.packbits(ones, axis=1, bitorder="little")
    return pool[rng.integers(0, distinct, n)]


def draw_ids(rng: np.random.Generator, n: int) -> list[str]:
    return [f"{'äz/ '[i % 4]}{i}" for i in rng.permutation(n)]  # not in order, not only ASCII


def write_codes(
    folder: Path,
    ids: list[str],
    codes: Codes,
    bits: int,
    parts: int = 3,
    uris: list[str] | None = None,
    relaxed: NDArray[np.float32] | None = None,
    sha256: list[bytes] | None = None,
    features: NDArray[np.float32] | None = None,
) -> Path:
    uris = uris or [f"file:{id}" for id in ids]
    width = -(-bits // 8)
    made_from = {"model": "m0del", "source": "s"}
    config = {"bits": bits, "relaxed": relaxed is not None, "features": features is not None}
    with new_directory(folder, "codes", config, made_from) as draft:
        (draft.path / "data").mkdir()
        for number, rows in enumerate(np.array_split(np.arange(len(ids)), parts)):
            part_ids = [ids[i] for i in rows]
            packed = pa.array([codes[i].tobytes() for i in rows], pa.binary(width))
            columns = {"id": part_ids, "uri": [uris[i] for i in rows], "code": packed}
            schema = pa.schema(
                [("id", pa.string()), ("uri", pa.string()), ("code", pa.binary(width))]
            )
            table = pa.table(columns, schema=schema)
            if relaxed is not None:
                flat = pa.array(relaxed[rows].astype(np.float16).ravel())
                column = pa.FixedSizeListArray.from_arrays(flat, bits)
                table = table.append_column("relaxed", column)
            if features is not None:
                int8 = code_column(as_int8(features[rows]).view(np.uint8))
                table = table.append_column("features", int8)
            if sha256 is not None:
                digests = pa.array([sha256[i] for i in rows], pa.binary(32))
                table = table.append_column("sha256", digests)
            pq.write_table(table, draft.path / "data" / f"part-{number:05}.parquet")
    return folder


def make_index(
    folder: Path,
    ids: list[str],
    codes: Codes,
    bits: int,
    parts: int = 3,
    columns: dict[str, Any] | None = None,
    relaxed: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
) -> Index:
    """Write codes and their index, which keeps what columns and vectors are given."""
    vectors = {"relaxed": relaxed, "features": features}
    written = write_codes(
        folder / "codes", ids, codes, bits, parts, relaxed=relaxed, features=features
    )
    file = None if columns is None else ColumnFile(write_columns_of(folder, ids, columns))
    names = [name for name, X in vectors.items() if X is not None]
    write_index(written, folder / "index", file, names)
    return open_index(folder / "index")


def write_columns_of(folder: Path, ids: list[str], columns: dict[str, Any]) -> Path:
    """Write columns as a user may have them, in another order than the codes."""
    order = pa.array(np.random.default_rng(5).permutation(len(ids)))
    pq.write_table(pa.table({"id": ids, **columns}).take(order), folder / "columns.parquet")
    return folder / "columns.parquet"


def draw_clustered(
    rng: np.random.Generator, n: int, bits: int, centres: int = 20, flips: float = 0.05
) -> Codes:
    """Draw n packed codes around a few centres, as supervised codes lie."""
    middles = rng.random((centres, bits)) < 0.5
    ones = middles[rng.integers(0, centres, n)] ^ (rng.random((n, bits)) < flips)
    return np.packbits(ones, axis=1, bitorder="little")
