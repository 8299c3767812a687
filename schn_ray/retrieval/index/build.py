"""Build an index from a ``codes`` directory, and add rows to an index or remove rows from it.

``build_index`` writes a new index, ``change_index`` a new version of an existing one. Both pass
batches of rows to ``write_index_rows``, which sorts the rows by id, refuses an id that comes twice
and groups equal codes. ``inverted_lists.write_lists`` clusters the distinct codes afterwards, and
``checked_files.write_digests`` hashes all files.

Memory holds the codes' order, but never all ids or uris: they are appended to files, the files are
mapped, sorted by Arrow, and written again in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact, open_artefact
from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.mirror import open_output
from schn_ray.core.versioned import new_version, remove_old_versions
from schn_ray.retrieval.code_files import (
    CODE,
    RELAXED,
    code_features,
    packed_codes,
    part_names,
    relaxed_codes,
)
from schn_ray.retrieval.index.checked_files import write_digests
from schn_ray.retrieval.index.index import Index, bytes_per_code, check_codes, open_index
from schn_ray.retrieval.index.inverted_lists import write_lists
from schn_ray.retrieval.index.postings import group_equal
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.index.string_columns import (
    StringColumnWriter,
    in_order,
    map_strings,
    write_strings,
)
from schn_ray.retrieval.index.vectors import VECTORS, Int8, as_int8, write_vectors

_ROWS_AT_ONCE = 1 << 17
_VECTORS_AT_ONCE = 1 << 13
_COLUMNS = ("id", "uri", CODE)
_FIRST_VERSION = "1"  # its folder
_MOST_ROWS = (1 << 32) - 1


class Piece(NamedTuple):
    """A batch of m rows.

    Attributes:
        ids: [m], without nulls.
        uris: [m], without nulls.
        codes: uint8 [m, w], packed.
        vectors: int8 [m, d] of each name that the index is built with.
    """

    ids: pa.LargeStringArray
    uris: pa.LargeStringArray
    codes: Bytes
    vectors: tuple[Int8, ...] = ()


def write_index(codes_dir: Path | str, out: Path | str, vectors: Collection[str] = ()) -> Manifest:
    """Write the index of a finished ``codes`` directory.

    Args:
        codes_dir: what ``encode`` wrote; a path or a URI.
        out: directory to write, a path or a URI.
        vectors: "relaxed" or "features", or both, to rescore by; the codes must have them.

    Returns:
        The index's manifest.

    Raises:
        AlreadyDone: ``out`` is already the finished index of these codes.
        SchnRayError: no codes, codes without these vectors, an id that comes twice, damaged codes,
            or ``out`` holds something else.

    Example:
        ``write_index("codes", "index").counts["rows"]``
    """
    return _write_new(codes_dir, out, _write, vectors)


def write_bare_index(codes_dir: Path | str, out: Path | str) -> Manifest:
    """Write an index without lists, for one pass over all codes.

    Args:
        codes_dir: see ``write_index``.
        out: see ``write_index``.

    Raises:
        SchnRayError: see ``write_index``.
    """
    return _write_new(codes_dir, out, _write_bare)


def _write_new(
    codes_dir: Path | str,
    out: Path | str,
    write: Callable[[Path, Iterable[Piece], int, str, Sequence[str]], dict[str, Any]],
    vectors: Collection[str] = (),
) -> Manifest:
    codes = open_artefact(local_copy(codes_dir), "codes")
    source = codes.manifest
    names = _known_vectors(vectors)
    _require_vectors(codes, names)
    config: dict[str, Any] = {"bits": source.config["bits"], "model": source.made_from["model"]}
    if names:
        config["with"] = names
    request = config, {"codes": source.fingerprint}
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, "index", *request) as draft,
    ):
        pieces = pieces_of_codes(codes, config["bits"], names)
        folder = draft.path / _FIRST_VERSION
        folder.mkdir()
        draft.counts |= write(folder, pieces, config["bits"], str(codes.path), names)
    return read_manifest(mirror.local, "index")


def rewrite_index(
    path: Path | str, add: Path | str | None = None, remove: Sequence[str] = ()
) -> Manifest:
    """Remove rows from an index, then add others, and write the result as its new version.

    Searches see the old version until the new one is complete. The new version gives the same
    results as an index that is built of the same rows at once.

    Args:
        path: the index, a path or a URI.
        add: a ``codes`` directory of the same model, a path or a URI.
        remove: ids to remove.

    Returns:
        The manifest of the new version.

    Raises:
        AlreadyDone: the last change of the index was this one.
        SchnRayError: an id to remove is missing, an id to add exists, the codes come from another
            model, or another process changes the index at the same time.
    """
    with open_output(path) as mirror:
        mirror.fetch_all()
        return _changed(mirror.local, None if add is None else local_copy(add), remove)


def _changed(path: Path, add: Path | None, remove: Sequence[str]) -> Manifest:
    before = read_manifest(path, "index")
    change: dict[str, Any] = {}
    if remove:
        digest = hashlib.sha256("\0".join(sorted(remove)).encode("utf-8", "surrogatepass"))
        change |= {"removed": len(remove), "removed_sha256": digest.hexdigest()}
    added = None if add is None else open_artefact(add, "codes")
    if added is not None:
        change["added"] = added.manifest.fingerprint
    changes = list(before.made_from.get("changes", []))
    if not change:
        raise SchnRayError("nothing to change: name codes to add, or ids to remove")
    if changes and changes[-1] == change:
        with contextlib.suppress(SchnRayError):  # another process may write it by now
            remove_old_versions(path, "index")
        raise AlreadyDone(path, "index")
    names = list(before.config.get("with", ()))
    if added is not None:
        _require_same_model(added, before.config)
        _require_vectors(added, names)
        added.check()
    made_from = before.made_from | {"changes": [*changes, change]}
    with new_version(path, "index", before.config, made_from) as draft:
        index = _open_unchanged(path, before)
        rows = np.delete(np.arange(len(index)), [index.find(id) for id in remove])
        pieces: Iterable[Piece] = pieces_of_index(index, rows, names)
        if added is not None:
            pieces = itertools.chain(pieces, pieces_of_codes(added, index.bits, names))
        draft.counts |= _write(draft.path, pieces, index.bits, f"{path}, with {add}", names)
    return read_manifest(path, "index")


def _open_unchanged(path: Path, before: Manifest) -> Index:
    """Open an index under the lock; refuse it if it is no longer the one that ``before`` lists."""
    index = open_index(path)
    if index.manifest.fingerprint != before.fingerprint:
        raise SchnRayError(
            f"{path} was changed by another process a moment ago; run the same command again"
        )
    return index


def write_index_rows(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str] = ()
) -> tuple[Bytes, Any]:
    """Write all files of an index but its lists and digests, rows in the order of their ids.

    Args:
        folder: an existing, empty folder to write to.
        pieces: the rows, in any order.
        bits: of a code.
        what: the rows' origin, for error messages.
        vectors: names of the pieces' vectors.

    Returns:
        The distinct codes uint8 [u, w], ascending, and how many rows have each, int64 [u].

    Raises:
        SchnRayError: no rows, an id that comes twice, or codes with bits set beyond the last.
    """
    raw = folder / "raw"
    with writing(raw):
        raw.mkdir()
    ids, uris, codes, widths = _gathered(raw, pieces, bits, what, vectors)
    order = _ascending(ids, what)
    for name, column in (("ids", ids), ("uris", uris)):
        write_strings(folder, name, in_order(column, order))
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


def _write(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> dict[str, Any]:
    codes, counts = write_index_rows(folder, pieces, bits, what, vectors)
    trial = write_lists(folder, codes, counts)
    write_digests(folder)
    counted = {"rows": int(counts.sum()), "unique_codes": len(codes)}
    if trial is None:
        return counted
    lists = (folder / "radii").stat().st_size // 4
    tried = {name: round(value, 4) for name, value in asdict(trial).items()}
    return counted | {"lists": lists} | tried


def _write_bare(
    folder: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> dict[str, Any]:
    codes, counts = write_index_rows(folder, pieces, bits, what, vectors)
    write_digests(folder)
    return {"rows": int(counts.sum()), "unique_codes": len(codes)}


def _gathered(
    raw: Path, pieces: Iterable[Piece], bits: int, what: str, vectors: Sequence[str]
) -> tuple[pa.LargeStringArray, pa.LargeStringArray, Bytes, dict[str, int]]:
    rows, widths = 0, dict[str, int]()
    with (
        StringColumnWriter(raw, "ids") as ids,
        StringColumnWriter(raw, "uris") as uris,
        FileWriter(raw / "codes") as file,
        contextlib.ExitStack() as stack,
    ):
        files = [stack.enter_context(FileWriter(raw / name)) for name in vectors]
        for piece in pieces:
            check_codes(piece.codes, bits, f"the codes in {what}")
            ids.append(piece.ids)
            uris.append(piece.uris)
            file.write(piece.codes.tobytes())
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
    return map_strings(raw, "ids"), map_strings(raw, "uris"), codes, widths


def _ascending(ids: pa.LargeStringArray, what: str) -> NDArray[Any]:
    """Return the row numbers in the order of the ids.

    Raises:
        SchnRayError: an id comes twice.
    """
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False:  # most listings are in order
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
                columns = [*_COLUMNS, *vectors]
                for batch in part.iter_batches(_rows_at_once(vectors), columns=columns):
                    table = pa.Table.from_batches([batch])
                    numbers = tuple(_vectors_in(table, name) for name in vectors)
                    piece = _piece(table.select(_COLUMNS).cast(expected))
                    yield piece._replace(vectors=numbers)
        except (ValueError, KeyError, pa.ArrowException) as error:
            raise SchnRayError(
                f"{codes.path}: not the codes that encode writes: {error}"
            ) from error


def _piece(table: pa.Table) -> Piece:
    for name in ("id", CODE):
        if table[name].null_count:
            raise ValueError(f"{name} is missing in {table[name].null_count} rows")
    ids, uris = (table[name].combine_chunks() for name in ("id", "uri"))
    return Piece(ids, uris.fill_null(""), packed_codes(table))


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
        numbers = tuple(index.vectors(name, chunk) for name in vectors)
        at = pa.array(chunk)
        yield Piece(ids.take(at), uris.take(at), index.codes(chunk), numbers)


def _known_vectors(vectors: Collection[str]) -> list[str]:
    """Return the names in order, each once."""
    if unknown := sorted(set(vectors) - set(VECTORS)):
        raise SchnRayError(f"--with {unknown[0]} is unknown; expected {' or '.join(VECTORS)}")
    return [name for name in VECTORS if name in vectors]


def _require_vectors(codes: Artefact, names: Sequence[str]) -> None:
    for name in names:
        if not codes.manifest.config.get(name):
            raise SchnRayError(
                f"{codes.path} has no {name}: encode with --set {name}=true, then index with "
                f"--with {name}"
            )


def _require_same_model(added: Artefact, config: dict[str, Any]) -> None:
    source = added.manifest
    model = config["bits"], config["model"]
    if (source.config["bits"], source.made_from["model"]) != model:
        raise SchnRayError(
            f"{added.path} was encoded by another model than the index, so codes cannot be "
            "compared: encode these images with the index's model"
        )
