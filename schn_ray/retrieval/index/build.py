"""Build an index from a ``codes`` directory, and add rows to an index or remove rows from it.

``write_index`` writes a new index, ``replace_index`` and ``rewrite_index`` a new version of one
that exists. ``version_files`` writes the files of each version.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schn_ray.core.artefacts import Artefact, open_artefact
from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.mirror import open_output
from schn_ray.core.versioned import new_version, remove_old_versions
from schn_ray.retrieval.index.column_file import require_file_of
from schn_ray.retrieval.index.columns import ColumnSource, NewColumns
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.pieces import (
    Piece,
    known_vectors,
    pieces_of_codes,
    pieces_of_index,
    require_vectors,
)
from schn_ray.retrieval.index.stored_columns import open_columns
from schn_ray.retrieval.index.version_files import write_bare_files, write_files

_FIRST_VERSION = "1"  # its folder


def write_index(
    codes_dir: Path | str,
    out: Path | str,
    columns: NewColumns | None = None,
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
    write = functools.partial(write_files, columns=sources)
    return _write_new(codes_dir, out, write, _fingerprint(columns), known_vectors(vectors))


def write_bare_index(codes_dir: Path | str, out: Path | str) -> Manifest:
    """Write an index without lists, for one pass over all codes.

    Args:
        codes_dir: see ``write_index``.
        out: see ``write_index``.

    Raises:
        SchnRayError: see ``write_index``.
    """
    return _write_new(codes_dir, out, write_bare_files)


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


def _fingerprint(columns: NewColumns | None) -> dict[str, Any]:
    if columns is None:
        return {}
    return {"columns": {"sha256": columns.fingerprint(), "kinds": dict(columns.kinds)}}


def replace_index(
    codes_dir: Path | str,
    path: Path | str,
    columns: NewColumns | None = None,
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
                f"{path} has the columns {', '.join(kinds)}: name a file or store that has them of "
                "all rows with --columns"
            )
        sources = () if columns is None else (columns,)
        with new_version(mirror.local, "index", before.config, made_from) as draft:
            bits = before.config["bits"]
            pieces = pieces_of_codes(codes, bits, names)
            draft.counts |= write_files(draft.path, pieces, bits, str(codes.path), names, sources)
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
        columns: a file or a store with the columns of the rows to add, which must be those of the
            index; without ``add``, with the new columns of all rows.
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
) -> NewColumns | None:
    """Open the file of a change; with rows to add, its columns must be those of the index."""
    require_file_of(columns, names)
    if not adds:
        return None if columns is None else open_columns(columns, names)
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
    return open_columns(columns, list(kinds), kinds)


def _changed(
    path: Path, add: Path | None, remove: Sequence[str], columns: NewColumns | None
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
        draft.counts |= write_files(draft.path, pieces, index.bits, what, names, sources)
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


def _require_same_model(added: Artefact, config: dict[str, Any]) -> None:
    source = added.manifest
    model = config["bits"], config["model"]
    if (source.config["bits"], source.made_from["model"]) != model:
        raise SchnRayError(
            f"{added.path} was encoded by another model than the index, so codes cannot be "
            "compared: encode these images with the index's model"
        )
