"""Write codes for another engine: a directory with its files, and the lines that search them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc

from schn_ray.core.directories import new_directory
from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.progress import Progress
from schn_ray.core.storage.mirror import open_output
from schn_ray.retrieval.engines.bulk_documents import ELASTICSEARCH, OPENSEARCH
from schn_ray.retrieval.engines.duckdb_table import DUCKDB
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch, open_gallery
from schn_ray.retrieval.engines.lance_table import LANCE
from schn_ray.retrieval.engines.matrix_files import FAISS, USEARCH
from schn_ray.retrieval.engines.milvus_files import MILVUS
from schn_ray.retrieval.engines.parquet_file import PARQUET
from schn_ray.retrieval.engines.postgres_table import PGVECTOR
from schn_ray.retrieval.engines.sqlite_table import SQLITE

KIND = "converted"
ENGINES = {
    "faiss": FAISS,
    "usearch": USEARCH,
    "lance": LANCE,
    "duckdb": DUCKDB,
    "sqlite": SQLITE,
    "pgvector": PGVECTOR,
    "opensearch": OPENSEARCH,
    "elasticsearch": ELASTICSEARCH,
    "milvus": MILVUS,
    "parquet": PARQUET,
}


def convert_codes(
    path: Path | str, to: str, out: Path | str, labels: Path | str | None = None
) -> Manifest:
    """Write codes as another engine reads them; the directory appears whole or not at all.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        to: name of the engine, one of ``ENGINES``.
        out: directory to write, a path or a URI.
        labels: a store whose labels the rows get, by their ids; a row that it does not have gets
            none.

    Returns:
        The manifest. Its counts: ``rows``, ``bits``, and ``stored_bits``, to which codes are
        padded with zeros. Distances do not change by that.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: no such engine, its package is missing, the engine does not take so many
            rows or bits or so long ids, damaged codes, or ``out`` holds something else.
    """
    engine = _engine(to)
    _require_packages(to, engine)
    gallery = open_gallery(path, labels)
    _check_size(to, engine, gallery)
    config = {"engine": to, "bits": gallery.bits, "labels": labels is not None}
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, KIND, config, gallery.made_from) as draft,
        Progress("converting", gallery.rows) as progress,
    ):
        batches = _checked(gallery, to, engine.longest_id, progress)
        engine.write(gallery, batches, draft.path)
        stored = -(-gallery.bits // engine.unit) * engine.unit
        draft.counts |= {"rows": gallery.rows, "bits": gallery.bits, "stored_bits": stored}
    return read_manifest(mirror.local, KIND)


def recipe(manifest: Manifest, out: str) -> str:
    """Return the lines that search what ``convert_codes`` wrote, in the engine's own language.

    Args:
        manifest: of the directory.
        out: its path or URI.
    """
    config = manifest.config
    target = Target(out, int(config["bits"]), bool(config["labels"]))
    return ENGINES[config["engine"]].recipe(target)


def _engine(name: str) -> Engine:
    if name not in ENGINES:
        hint = nearest(name, list(ENGINES)) or "."
        raise SchnRayError(f"no engine '{name}'{hint} Available: {', '.join(ENGINES)}")
    return ENGINES[name]


def _require_packages(name: str, engine: Engine) -> None:
    missing = [module for module in engine.packages if importlib.util.find_spec(module) is None]
    if missing:
        packages = " ".join(module.replace("_", "-") for module in missing)
        raise SchnRayError(
            f"{name} needs {', '.join(missing)}: pip install 'schn-ray[{engine.extra}]', or "
            f"pip install {packages}"
        )


def _check_size(name: str, engine: Engine, gallery: CodeGallery) -> None:
    if engine.most_rows is not None and gallery.rows > engine.most_rows:
        raise SchnRayError(
            f"{gallery.location} has {gallery.rows:,} rows, {name} takes {engine.most_rows:,}: "
            "convert it in parts"
        )
    if engine.most_bits is not None and gallery.bits > engine.most_bits:
        raise SchnRayError(
            f"{gallery.location} has codes of {gallery.bits:,} bits, {name} takes "
            f"{engine.most_bits:,}"
        )


def _checked(
    gallery: CodeGallery, name: str, longest_id: int | None, progress: Progress
) -> Iterator[RowBatch]:
    """Yield the batches; refuse ids that are too long, and show how far it is."""
    for batch in gallery.batches():
        if longest_id is not None:
            longest = int(pc.max(pc.binary_length(batch.ids)).as_py())
            if longest > longest_id:
                raise SchnRayError(
                    f"{gallery.location}: an id has {longest:,} bytes, {name} takes {longest_id:,}"
                )
        yield batch
        progress.advance(len(batch.ids))
