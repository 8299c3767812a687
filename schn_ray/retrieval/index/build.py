"""Write an index from codes, or a new version of it with rows more or less.

Ids and uris never become Python objects and never all lie in memory: they are appended to files,
mapped, sorted by Arrow, and written again in order.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest, verify_files
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.mirror import open_output
from schn_ray.core.versioned import new_version
from schn_ray.retrieval.code_files import CODE, packed_codes
from schn_ray.retrieval.index.checked_files import write_digests
from schn_ray.retrieval.index.index import Index, check_codes, open_index, width
from schn_ray.retrieval.index.inverted_lists import write_lists
from schn_ray.retrieval.index.postings import group_equal
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.index.string_columns import (
    StringColumnWriter,
    in_order,
    map_strings,
    write_strings,
)

_ROWS_AT_ONCE = 1 << 17
_COLUMNS = ("id", "uri", CODE)
_FIRST = "1"  # the folder of an index's first version
_MOST_ROWS = (1 << 32) - 1


class Piece(NamedTuple):
    """Some rows: ids, uris, and packed codes uint8 [m, w]."""

    ids: pa.LargeStringArray
    uris: pa.LargeStringArray
    codes: Bytes


def write_index(codes_dir: Path | str, out: Path | str) -> Manifest:
    """Write the index of a finished ``codes`` directory; either may be at a URI.

    Raises:
        AlreadyDone: ``out`` is the finished index of these codes.
        SchnRayError: no codes, an id twice, damaged codes, or ``out`` holds something else.
    """
    codes_dir = local_copy(codes_dir)
    source = read_manifest(codes_dir, "codes")
    config = {"bits": source.config["bits"], "model": source.made_from["model"]}
    request = config, {"codes": source.fingerprint}
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, "index", *request) as draft,
    ):
        verify_files(codes_dir, source)
        pieces = _pieces_of_codes(codes_dir, config["bits"])
        (draft.path / _FIRST).mkdir()
        draft.counts |= _write(draft.path / _FIRST, pieces, config["bits"], str(codes_dir))
    return read_manifest(mirror.local, "index")


def rewrite_index(
    path: Path | str, add: Path | str | None = None, remove: Sequence[str] = ()
) -> Manifest:
    """Write a new version of an index: first without some rows, then with those of more codes.

    Searches see the old version until the new one is whole. The result answers as an index that
    is built of the same rows at once.

    Args:
        path: the index; it may be at a URI, and so may the codes.
        add: a ``codes`` directory of the same model.
        remove: ids.

    Raises:
        AlreadyDone: the last change was this one.
        SchnRayError: an id to remove is not there, one to add is, or codes of another model.
    """
    with open_output(path) as mirror:
        mirror.fetch_all()
        return _changed(mirror.local, None if add is None else local_copy(add), remove)


def _changed(path: Path, add: Path | None, remove: Sequence[str]) -> Manifest:
    before = open_index(path)
    change: dict[str, Any] = {}
    rows = np.arange(len(before))
    if remove:
        digest = hashlib.sha256("\0".join(sorted(remove)).encode("utf-8", "surrogatepass"))
        change |= {"removed": len(remove), "removed_sha256": digest.hexdigest()}
    if add is not None:
        source = read_manifest(add, "codes")
        change["added"] = source.fingerprint
    made_from, config = before.manifest.made_from, before.manifest.config
    changes = list(made_from.get("changes", []))
    if not change:
        raise SchnRayError("nothing to change: name codes to add, or ids to remove")
    if changes and changes[-1] == change:
        raise AlreadyDone(path, "index")
    if add is not None:
        _require_same_model(source, config, add)
        verify_files(add, source)
    rows = np.delete(rows, [before.find(id) for id in remove])
    with new_version(path, "index", config, made_from | {"changes": [*changes, change]}) as draft:
        pieces = _pieces_of_index(before, rows)
        if add is not None:
            pieces = _chained(pieces, _pieces_of_codes(add, before.bits))
        draft.counts |= _write(draft.path, pieces, before.bits, f"{path}, with {add}")
    return read_manifest(path, "index")


def write_index_rows(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str
) -> tuple[Bytes, Any]:
    """Write all of an index but its lists, rows in the order of their ids.

    Returns:
        The distinct codes uint8 [u, w], and how many rows have each, int64 [u].

    Raises:
        SchnRayError: no rows, an id twice, or codes with bits beyond the last.
    """
    raw = folder / "raw"
    raw.mkdir()
    ids, uris, codes = _gathered(raw, pieces, bits, what)
    order = _ascending(ids, what)
    for name, column in (("ids", ids), ("uris", uris)):
        write_strings(folder, name, in_order(column, order))
    codes = codes[order]
    rows, starts = group_equal(codes)
    counts = np.diff(starts, append=len(rows))
    codes = codes[rows[starts]]
    number_of_row = np.empty(len(rows), np.uint32)
    number_of_row[rows] = np.repeat(np.arange(len(starts), dtype=np.uint32), counts)
    codes.tofile(folder / "codes")
    np.append(starts, len(rows)).tofile(folder / "starts")
    rows.astype(np.uint32).tofile(folder / "rows")
    number_of_row.tofile(folder / "code_of_row")
    shutil.rmtree(raw)
    return codes, counts


def _write(folder: Path, pieces: Iterable[Piece], bits: int, what: str) -> dict[str, Any]:
    codes, counts = write_index_rows(folder, pieces, bits, what)
    trial = write_lists(folder, codes, counts)
    write_digests(folder)
    counted = {"rows": int(counts.sum()), "unique_codes": len(codes)}
    if trial is None:
        return counted
    lists = (folder / "radii").stat().st_size // 4
    tried = {name: round(value, 4) for name, value in asdict(trial).items()}
    return counted | {"lists": lists} | tried


def _gathered(
    raw: Path, pieces: Iterable[Piece], bits: int, what: str
) -> tuple[pa.LargeStringArray, pa.LargeStringArray, Bytes]:
    ids, uris, rows = StringColumnWriter(raw, "ids"), StringColumnWriter(raw, "uris"), 0
    with (raw / "codes").open("wb") as file:
        for piece in pieces:
            check_codes(piece.codes, bits, f"the codes in {what}")
            ids.append(piece.ids)
            uris.append(piece.uris)
            file.write(piece.codes.tobytes())
            rows += len(piece.codes)
    ids.close()
    uris.close()
    if not 0 < rows <= _MOST_ROWS:
        raise SchnRayError(
            f"{what} holds no codes; encode at least one image first"
            if not rows
            else f"{what}: {rows:,} rows, one index holds {_MOST_ROWS:,}; make several"
        )
    codes = np.memmap(raw / "codes", np.uint8, "r").reshape(rows, width(bits))
    return map_strings(raw, "ids"), map_strings(raw, "uris"), codes


def _ascending(ids: pa.LargeStringArray, what: str) -> NDArray[Any]:
    """Return the rows in the order of their ids.

    Raises:
        SchnRayError: an id twice.
    """
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False:  # listings often are in order
        return np.arange(len(ids))
    order: NDArray[Any] = pc.sort_indices(ids).to_numpy()
    repeated, last = list[str](), None
    for part in in_order(ids, order):
        shifted = pa.concat_arrays([part[:1] if last is None else last, part[:-1]])
        same = pc.equal(part, shifted)
        repeated += part.filter(same).to_pylist()[0 if last is not None else 1 :]
        last = part[-1:]
    if repeated:
        raise SchnRayError(
            f"{what}: {len(repeated)} rows repeat an id, such as {repeated[0]!r}; ids must be "
            "unique: encode the images again from a source without repeats, or remove those ids "
            "from the index first"
        )
    return order


def _pieces_of_codes(codes_dir: Path, bits: int) -> Iterator[Piece]:
    wanted = pa.schema(
        [
            pa.field("id", pa.large_string(), nullable=False),
            pa.field("uri", pa.large_string()),
            pa.field(CODE, pa.binary(width(bits)), nullable=False),
        ]
    )
    for path in sorted(codes_dir.glob("part-*.parquet")):
        try:
            with pq.ParquetFile(path) as part:
                for batch in part.iter_batches(_ROWS_AT_ONCE, columns=list(_COLUMNS)):
                    table = pa.Table.from_batches([batch]).select(_COLUMNS).cast(wanted)
                    yield _piece(table)
        except (ValueError, KeyError, pa.ArrowException) as error:
            raise SchnRayError(f"{codes_dir}: not the codes that encode writes: {error}") from error


def _piece(table: pa.Table) -> Piece:
    for name in ("id", CODE):
        if table[name].null_count:
            raise ValueError(f"{name} is missing in {table[name].null_count} rows")
    ids, uris = (table[name].combine_chunks() for name in ("id", "uri"))
    return Piece(ids, uris.fill_null(""), packed_codes(table))


def _pieces_of_index(index: Index, rows: NDArray[np.int64]) -> Iterator[Piece]:
    ids, uris = (column.whole() for column in index.columns())
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        yield Piece(ids.take(pa.array(some)), uris.take(pa.array(some)), index.codes(some))


def _chained(*parts: Iterator[Piece]) -> Iterator[Piece]:
    for part in parts:
        yield from part


def _require_same_model(source: Manifest, config: dict[str, Any], add: Path) -> None:
    found = {"bits": source.config["bits"], "model": source.made_from["model"]}
    if found != config:
        raise SchnRayError(
            f"{add} was coded by another model than the index; its codes mean something else: "
            "encode these images with the index's model"
        )
