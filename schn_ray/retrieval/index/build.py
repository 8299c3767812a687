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
import functools
import hashlib
import itertools
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact, open_artefact
from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.mirror import open_output
from schn_ray.core.versioned import new_version, remove_old_versions
from schn_ray.retrieval.index.checked_files import write_digests
from schn_ray.retrieval.index.column_file import ColumnFile, require_file_of
from schn_ray.retrieval.index.columns import ColumnSource, write_columns
from schn_ray.retrieval.index.contents import DIGEST, write_contents
from schn_ray.retrieval.index.index import Index, bytes_per_code, check_codes, open_index
from schn_ray.retrieval.index.inverted_lists import write_lists
from schn_ray.retrieval.index.pieces import (
    Piece,
    known_vectors,
    pieces_of_codes,
    pieces_of_index,
    require_vectors,
)
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

_FIRST_VERSION = "1"  # its folder
_MOST_ROWS = (1 << 32) - 1


def write_index(
    codes_dir: Path | str,
    out: Path | str,
    columns: ColumnFile | None = None,
    vectors: Collection[str] = (),
) -> Manifest:
    """Write the index of a finished ``codes`` directory.

    Args:
        codes_dir: what ``encode`` wrote; a path or a URI.
        out: directory to write, a path or a URI.
        columns: of the rows, joined by id, for filters.
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
    sources = () if columns is None else (columns,)
    write = functools.partial(_write, columns=sources)
    return _write_new(codes_dir, out, write, _fingerprint(columns), known_vectors(vectors))


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
    more_inputs: Mapping[str, Any] | None = None,
    vectors: Sequence[str] = (),
) -> Manifest:
    codes = open_artefact(local_copy(codes_dir), "codes")
    source = codes.manifest
    require_vectors(codes, vectors)
    config: dict[str, Any] = {"bits": source.config["bits"], "model": source.made_from["model"]}
    if vectors:
        config["with"] = list(vectors)
    request = config, {"codes": source.fingerprint, **(more_inputs or {})}
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, "index", *request) as draft,
    ):
        pieces = pieces_of_codes(codes, config["bits"], vectors)
        folder = draft.path / _FIRST_VERSION
        folder.mkdir()
        draft.counts |= write(folder, pieces, config["bits"], str(codes.path), vectors)
    return read_manifest(mirror.local, "index")


def _fingerprint(columns: ColumnFile | None) -> dict[str, Any]:
    if columns is None:
        return {}
    return {"columns": {"sha256": columns.fingerprint(), "kinds": dict(columns.kinds)}}


def replace_index(
    codes_dir: Path | str,
    path: Path | str,
    columns: ColumnFile | None = None,
    vectors: Collection[str] = (),
) -> Manifest:
    """Write an index again, of codes that were brought up to date, as its new version.

    Searches see the old version until the new one is complete.

    Args:
        codes_dir: a ``codes`` directory of the same model, a path or a URI.
        path: the index, a path or a URI.
        columns: of all rows, for filters; an index that has columns needs them again.
        vectors: none, or those that the index has.

    Returns:
        The manifest of the new version.

    Raises:
        AlreadyDone: the index is that of these codes.
        SchnRayError: codes of another model, damaged ones or without the index's vectors, other
            vectors than the index has, or another process changes it at the same time.
    """
    codes = open_artefact(local_copy(codes_dir), "codes")
    with open_output(path) as mirror:
        mirror.fetch_all()
        before = read_manifest(mirror.local, "index")
        made_from = {"codes": codes.manifest.fingerprint} | _fingerprint(columns)
        if before.made_from == made_from:
            with contextlib.suppress(SchnRayError):  # another process may write it by now
                remove_old_versions(mirror.local, "index")
            raise AlreadyDone(mirror.local, "index")
        _require_same_model(codes, before.config)
        names = _vectors_of(before)
        if vectors and known_vectors(vectors) != names:
            raise SchnRayError(
                f"{path} was built {f'with {names}' if names else 'without vectors'}, and --update "
                "does not change that: index the codes again, into another directory"
            )
        require_vectors(codes, names)
        if columns is None and (kinds := open_index(mirror.local).kinds):
            raise SchnRayError(
                f"{path} has the columns {', '.join(kinds)}: name a file that has them of all rows "
                "with --columns FILE"
            )
        sources = () if columns is None else (columns,)
        with new_version(mirror.local, "index", before.config, made_from) as draft:
            bits = before.config["bits"]
            pieces = pieces_of_codes(codes, bits, names)
            draft.counts |= _write(draft.path, pieces, bits, str(codes.path), names, sources)
        return read_manifest(mirror.local, "index")


def rewrite_index(
    path: Path | str,
    add: Path | str | None = None,
    remove: Sequence[str] = (),
    columns: Path | str | None = None,
    columns_of: Sequence[str] | None = None,
) -> Manifest:
    """Remove rows from an index, then add others, and write the result as its new version.

    Searches see the old version until the new one is complete. The new version gives the same
    results as an index that is built of the same rows at once.

    Args:
        path: the index, a path or a URI.
        add: a ``codes`` directory of the same model, a path or a URI.
        remove: ids to remove.
        columns: a file with the columns of the rows to add, which must be those of the index;
            without ``add``, with the new columns of all rows.
        columns_of: which columns of the file; not with ``add``.

    Returns:
        The manifest of the new version.

    Raises:
        AlreadyDone: the last change of the index was this one.
        SchnRayError: an id to remove is missing, an id to add exists, the codes come from another
            model, columns are missing or of other kinds, or another process changes the index at
            the same time.
    """
    with open_output(path) as mirror:
        mirror.fetch_all()
        file = _column_file(mirror.local, add is not None, columns, columns_of)
        return _changed(mirror.local, None if add is None else local_copy(add), remove, file)


def _column_file(
    path: Path, adds: bool, columns: Path | str | None, names: Sequence[str] | None
) -> ColumnFile | None:
    """Open the file of a change; with rows to add, its columns must be those of the index."""
    require_file_of(columns, names)
    if not adds:
        return None if columns is None else ColumnFile(columns, names)
    kinds = open_index(path).kinds
    if kinds and columns is None:
        raise SchnRayError(
            f"{path} has the columns {', '.join(kinds)}: name a file that has them of the rows to "
            "add with --columns FILE"
        )
    if columns is None:
        return None
    if not kinds:
        raise SchnRayError(
            f"{path} has no columns, so added rows cannot have any. Give them to all rows first, "
            "with --columns FILE and without --add"
        )
    if names is not None:
        raise SchnRayError(
            f"added rows have the columns of the index, {', '.join(kinds)}: leave out --columns-of"
        )
    return ColumnFile(columns, list(kinds), kinds)


def _changed(
    path: Path, add: Path | None, remove: Sequence[str], columns: ColumnFile | None
) -> Manifest:
    before = read_manifest(path, "index")
    change: dict[str, Any] = {}
    if remove:
        digest = hashlib.sha256("\0".join(sorted(remove)).encode("utf-8", "surrogatepass"))
        change |= {"removed": len(remove), "removed_sha256": digest.hexdigest()}
    added = None if add is None else open_artefact(add, "codes")
    if added is not None:
        change["added"] = added.manifest.fingerprint
    if columns is not None:
        change |= _fingerprint(columns)
    changes = list(before.made_from.get("changes", []))
    if not change:
        raise SchnRayError("nothing to change: name codes to add, ids to remove, or columns")
    if changes and changes[-1] == change:
        with contextlib.suppress(SchnRayError):  # another process may write it by now
            remove_old_versions(path, "index")
        raise AlreadyDone(path, "index")
    names = _vectors_of(before)
    if added is not None:
        _require_same_model(added, before.config)
        require_vectors(added, names)
        added.check()
    made_from = before.made_from | {"changes": [*changes, change]}
    with new_version(path, "index", before.config, made_from) as draft:
        index = _open_unchanged(path, before)
        rows = np.delete(np.arange(len(index)), [index.find(id) for id in remove])
        pieces: Iterable[Piece] = pieces_of_index(index, rows, names)
        if added is not None:
            pieces = itertools.chain(pieces, pieces_of_codes(added, index.bits, names))
        sources: list[ColumnSource] = [] if columns is None else [columns]
        if index.kinds and (added is not None or columns is None):
            sources.insert(0, index.columns_of(rows))
        what = f"{path}, with {add}"
        draft.counts |= _write(draft.path, pieces, index.bits, what, names, sources)
    return read_manifest(path, "index")


def _vectors_of(index: Manifest) -> list[str]:
    return list(index.config.get("with", ()))


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


def _write(
    folder: Path,
    pieces: Iterable[Piece],
    bits: int,
    what: str,
    vectors: Sequence[str],
    columns: Sequence[ColumnSource] = (),
) -> dict[str, Any]:
    codes, counts = write_index_rows(folder, pieces, bits, what, vectors)
    described = write_columns(folder, map_strings(folder, "ids"), columns)
    trial = write_lists(folder, codes, counts)
    write_digests(folder)
    counted = {"rows": int(counts.sum()), "unique_codes": len(codes)} | described
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


def _require_same_model(added: Artefact, config: dict[str, Any]) -> None:
    source = added.manifest
    model = config["bits"], config["model"]
    if (source.config["bits"], source.made_from["model"]) != model:
        raise SchnRayError(
            f"{added.path} was encoded by another model than the index, so codes cannot be "
            "compared: encode these images with the index's model"
        )
