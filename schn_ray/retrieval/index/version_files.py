"""Write the files of one version of an index.

Rows come in batches and in any order. They are sorted by id, an id that comes twice is refused, and
equal codes are grouped. ``inverted_lists.write_lists`` clusters the distinct codes afterwards, and
``checked_files.write_digests`` hashes all files.

Memory holds the codes' order, but never all ids or uris: they are appended to files, the files are
mapped, sorted by Arrow, and written again in order.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import write_digests
from schn_ray.retrieval.index.columns import ColumnSource, write_columns
from schn_ray.retrieval.index.contents import DIGEST, write_contents
from schn_ray.retrieval.index.index import bytes_per_code, check_codes
from schn_ray.retrieval.index.inverted_lists import write_lists
from schn_ray.retrieval.index.pieces import Piece
from schn_ray.retrieval.index.postings import group_equal
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.index.string_columns import (
    StringColumnWriter,
    in_order,
    map_strings,
    order_of_ids,
    write_strings,
)
from schn_ray.retrieval.index.vectors import write_vectors

_MOST_ROWS = (1 << 32) - 1


def write_files(
    folder: Path,
    pieces: Iterable[Piece],
    bits: int,
    what: str,
    vectors: Sequence[str],
    columns: Sequence[ColumnSource] = (),
) -> dict[str, Any]:
    """Write all files of a version, the columns and lists included.

    Args:
        folder: an existing, empty folder to write to.
        pieces: the rows, in any order.
        bits: of a code.
        what: the rows' origin, for error messages.
        vectors: names of the pieces' vectors.
        columns: of the rows, joined by id, for filters.

    Returns:
        Counts for the manifest: rows, distinct codes, lists and columns.

    Raises:
        SchnRayError: no rows, an id that comes twice, or codes with bits set beyond the last.
    """
    codes, counts = _write_rows(folder, pieces, bits, what, vectors)
    described = write_columns(folder, map_strings(folder, "ids"), columns)
    trial = write_lists(folder, codes, counts)
    write_digests(folder)
    counted = {"rows": int(counts.sum()), "unique_codes": len(codes)} | described
    if trial is None:
        return counted
    lists = (folder / "radii").stat().st_size // 4
    tried = {name: round(value, 4) for name, value in asdict(trial).items()}
    return counted | {"lists": lists} | tried


def write_bare_files(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> dict[str, Any]:
    """Write the files of a version without columns and lists, for one pass over all codes.

    Args:
        folder: see ``write_files``.
        pieces: see ``write_files``.
        bits: of a code.
        what: the rows' origin, for error messages.
        vectors: names of the pieces' vectors.
    """
    codes, counts = _write_rows(folder, pieces, bits, what, vectors)
    write_digests(folder)
    return {"rows": int(counts.sum()), "unique_codes": len(codes)}


def _write_rows(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> tuple[Bytes, Any]:
    """Write all but columns, lists and digests.

    Returns:
        The distinct codes uint8 [u, w], ascending, and how many rows have each, int64 [u].
    """
    raw = folder / "raw"
    with writing(raw):
        raw.mkdir()
    ids, uris, codes, contents, widths = _gathered(raw, pieces, bits, what, vectors)
    order = _ascending(ids, what)
    for name, column in (("ids", ids), ("uris", uris)):
        write_strings(folder, name, in_order(column, order))
    write_contents(folder, contents[order])
    codes = codes[order]
    rows, starts = group_equal(codes)
    counts = np.diff(starts, append=len(rows))
    codes = codes[rows[starts]]
    number_of_row = np.empty(len(rows), np.uint32)
    number_of_row[rows] = np.repeat(np.arange(len(starts), dtype=np.uint32), counts)
    _write_array(folder / "codes", codes)
    _write_array(folder / "starts", np.append(starts, len(rows)))
    _write_array(folder / "rows", rows.astype(np.uint32))
    _write_array(folder / "code_of_row", number_of_row)
    for name, width in widths.items():
        write_vectors(folder, name, raw / name, width, order)
    shutil.rmtree(raw)
    return codes, counts


def _write_array(path: Path, array: NDArray[Any]) -> None:
    with FileWriter(path) as file:
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def _gathered(
    raw: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> tuple[pa.LargeStringArray, pa.LargeStringArray, Bytes, Bytes, dict[str, int]]:
    rows, widths = 0, dict[str, int]()
    with (
        StringColumnWriter(raw, "ids") as ids,
        StringColumnWriter(raw, "uris") as uris,
        FileWriter(raw / "codes") as file,
        FileWriter(raw / "contents") as digests,
        contextlib.ExitStack() as stack,
    ):
        files = [stack.enter_context(FileWriter(raw / name)) for name in vectors]
        for piece in pieces:
            check_codes(piece.codes, bits, f"the codes in {what}")
            ids.append(piece.ids)
            uris.append(piece.uris)
            file.write(piece.codes.tobytes())
            digests.write(piece.contents.tobytes())
            for name, vector_file, of_name in zip(vectors, files, piece.vectors, strict=True):
                if widths.setdefault(name, of_name.shape[1]) != of_name.shape[1]:
                    raise SchnRayError(
                        f"{what}: {name} of {widths[name]} and of {of_name.shape[1]} numbers; the "
                        "codes must come from one model"
                    )
                vector_file.write(of_name.tobytes())
            rows += len(piece.codes)
    if not 0 < rows <= _MOST_ROWS:
        raise SchnRayError(
            f"{what} holds no codes; encode at least one image first"
            if not rows
            else f"{what}: {rows:,} rows, one index holds {_MOST_ROWS:,}; make more than one"
        )
    codes = np.memmap(raw / "codes", np.uint8, "r").reshape(rows, bytes_per_code(bits))
    contents = np.memmap(raw / "contents", np.uint8, "r").reshape(rows, DIGEST)
    return map_strings(raw, "ids"), map_strings(raw, "uris"), codes, contents, widths


def _ascending(ids: pa.LargeStringArray, what: str) -> NDArray[np.int64]:
    """Return the row numbers in the order of the ids.

    Raises:
        SchnRayError: an id comes twice.
    """
    return order_of_ids(
        ids,
        lambda count, id: SchnRayError(
            f"{what}: {count} rows repeat an id, such as {id!r}; ids must be unique: encode the "
            "images again from a source without repeats, or remove those ids from the index first"
        ),
    )
