"""The verb that takes codes to other engines: convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.cli.album.parts import part_of, store_of_labels
from schn_ray.cli.verbs.arguments import finish, location_of
from schn_ray.cli.verbs.results import Converted

if TYPE_CHECKING:
    from schn_ray.data.store.reader import Store
    from schn_ray.retrieval.index.index import Index


def convert(
    path: Path | str | Index, to: str, out: Path | str, *, labels: Path | str | Store | None = None
) -> Converted:
    """Write codes as another search engine reads them, exactly as they are.

    Args:
        path: codes, an index, or an album of ``build``.
        to: ``faiss``, ``usearch``, ``lance``, ``duckdb``, ``sqlite``, ``pgvector``,
            ``opensearch``, ``elasticsearch``, ``milvus`` or ``parquet``.
        out: the directory or URI for the engine's files.
        labels: a store whose labels the rows get, by their ids; default: the album's own.

    Returns:
        The directory, with ``recipe``: the lines that search it.

    Raises:
        SchnRayError: no such engine, its package is missing, the engine does not take so many
            rows or bits, or ``out`` holds something else.

    Example:
        >>> print(convert("codes", "duckdb", "tables").recipe)  # doctest: +SKIP
    """
    from schn_ray.retrieval.engines.convert import convert_codes

    store = store_of_labels(location_of(path), None if labels is None else location_of(labels))
    gallery = part_of(location_of(path), "codes")
    done = finish(out, lambda: convert_codes(gallery, to, location_of(out), store))
    return Converted(str(done), done.manifest, done.note)
