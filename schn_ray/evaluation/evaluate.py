"""Measure a model on a store's split: the store coded, queries against gallery, controls."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import write_json
from schn_ray.core.directories import DirectoryWriter, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import as_location, is_uri, join
from schn_ray.core.storage.mirror import Mirror, open_output
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits.audit import Audit, audit
from schn_ray.data.splits.protocols import PROTOCOLS
from schn_ray.data.store.reader import Store, open_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.controls import measure_controls
from schn_ray.evaluation.examples import examples
from schn_ray.evaluation.figures import _by_class, _Measure, _reidentified
from schn_ray.evaluation.metrics.average_precision import (
    average_precision,
)
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.plot_data import diagrams
from schn_ray.evaluation.results import (
    AUDIT,
    CODES,
    DIAGRAMS,
    EXAMPLES,
    KIND,
    METRICS,
    write_queries,
)
from schn_ray.models.hasher import LEARNED, load
from schn_ray.retrieval.code_files import packed_codes, read_codes
from schn_ray.retrieval.encode import EncodeOptions, encode_shards

Floats = NDArray[np.float64]


def evaluate(
    run: Path | str,
    store_path: Path | str,
    out: Path | str,
    config: EvaluateConfig,
    map_shards: MapShards = map_locally,
) -> Manifest:
    """Code the store with a run's network and measure its queries against its gallery.

    Args:
        run: a finished run; it, the store and ``out`` may be at URIs.
        store_path: a store with a split.
        out: directory to write; see ``files``.
        config: what is measured.
        map_shards: codes images and counts parts of the gallery, on whatever machines.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: the split is empty or would spoil the figures, or a learned gallery has no
            codes.
    """
    model, run = as_location(run), local_copy(run)
    store, hasher = open_store(store_path), load(run)
    audited = _audited(store, config)
    made_from = {"model": hasher.fingerprint, "store": store.manifest.fingerprint}
    request = config.model_dump(mode="json"), made_from
    with open_output(out) as mirror, new_directory(mirror.here, KIND, *request) as draft:
        codes = _codes_of(mirror, draft)
        encoded, files = _encode_store(model, store, codes, config, map_shards)
        draft.known |= {f"{CODES}/{name}": known for name, known in files.items()}
        queries = _ranked(store, store.rows("query"), encoded)
        measure = _Measure(queries, hasher.bits, config, map_shards)
        gallery, dropped = _gallery(run, store, encoded, config.gallery == "learned")
        h = measure.counted(gallery)
        figures = _context(run, Path(model).name, store, config, audited, gallery, dropped)
        figures |= measure.figures(h, len(gallery)) | {"by_class": _by_class(store, queries, h)}
        figures["legacy"] = measure.legacy(gallery)
        figures["reidentification"] = _reidentified(store, queries, gallery, hasher.bits)
        both = config.gallery == "both"
        figures["side_by_side"] = _side_by_side(run, store, encoded, measure) if both else []
        # beside the network's own codes, whichever codes the figures above are for
        own = _ranked(store, gallery.rows, encoded)
        figures["controls"] = _controls(model, store, queries, own, hasher.bits, config, map_shards)
        write_json(draft.path / METRICS, figures | made_from)
        write_json(draft.path / AUDIT, asdict(audited))
        write_json(draft.path / DIAGRAMS, diagrams(queries, gallery, h, store.classes))
        ap = average_precision(h.plain)
        write_json(draft.path / EXAMPLES, examples(store, queries, gallery, ap, config.examples))
        write_queries(draft.path, store.ids.take(pa.array(queries.rows)), measure.each(h))
        draft.counts |= {"queries": len(queries), "gallery": len(gallery)}
    return read_manifest(mirror.here, KIND)


def _audited(store: Store, config: EvaluateConfig) -> Audit:
    for role in ("query", "gallery"):
        if not len(store.rows(role)):
            raise SchnRayError(f"the store's split has no {role} rows: nothing to measure")
    made = store.manifest.config
    protocol = PROTOCOLS.get(made["protocol"])
    if protocol is not None and made["keep_unlabelled"]:
        protocol = replace(protocol, unlabelled=True)
    ids, unlabelled = pa.chunked_array([store.ids]), np.diff(store.labels.indptr) == 0
    found = audit(store.split, ids, store.first_with_image(), unlabelled, protocol)
    if found.spoiling() and config.audit == "refuse":
        raise SchnRayError(
            "this split would spoil the figures:\n  "
            + "\n  ".join(found.spoiling())
            + "\nPrepare the store again with a split in which nobody has seen the queries, or "
            "measure all the same with --set audit=report, which lists every row in audit.json"
        )
    return found


def _codes_of(mirror: Mirror, draft: DirectoryWriter) -> str:
    """Return where all workers can write codes."""
    if not is_uri(mirror.location):
        return str(draft.path.absolute() / CODES)
    return join(mirror.location, CODES)


def _encode_store(
    model: str,
    store: Store,
    codes: str,
    config: EvaluateConfig,
    map_shards: MapShards,
) -> tuple[NDArray[np.uint8], dict[str, tuple[str, int]]]:
    """Return the codes of all rows, and name -> (SHA-256, bytes) of each file of codes."""
    source = open_source(store.location, SourceConfig(kind="store"))
    options = EncodeOptions(model, config.batch_size)
    files = encode_shards(source, source.shards(), options, codes, map_shards)
    table, packed = read_codes(codes)
    if not table["id"].combine_chunks().equals(store.ids.cast(pa.string())):
        raise SchnRayError("rows of the store could not be coded; verify it with schn-ray check")
    return packed, files


def _ranked(store: Store, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> LabelledCodes:
    return LabelledCodes(rows, codes[rows], store.labels[rows])


def _gallery(
    run: Path, store: Store, encoded: NDArray[np.uint8], learned: bool
) -> tuple[LabelledCodes, int]:
    """Return the gallery with the codes asked for, and how many of its rows have none."""
    rows = store.rows("gallery")
    if not learned:
        return _ranked(store, rows, encoded), 0
    table = pq.read_table(run / LEARNED)
    places = pc.index_in(store.ids.take(pa.array(rows)), value_set=table["id"].combine_chunks())
    found = places.is_valid().to_numpy(zero_copy_only=False)
    if not found.any():
        raise SchnRayError(
            "no gallery row has a learned code: in this split the gallery is not part of training. "
            "Use --gallery encoded, or a protocol such as cifar10-59k"
        )
    codes = packed_codes(table)[places.drop_null().to_numpy()]
    kept = rows[found]
    return LabelledCodes(kept, codes, store.labels[kept]), int((~found).sum())


def _side_by_side(
    run: Path, store: Store, encoded: NDArray[np.uint8], measure: _Measure
) -> list[dict[str, Any]]:
    """Measure learned codes, and encoded ones of the very same rows where others have none."""
    learned, without_code = _gallery(run, store, encoded, learned=True)
    sides = {"learned": learned}
    if without_code:  # else the difference would be that of two galleries
        sides["encoded"] = _ranked(store, learned.rows, encoded)
    return [
        {"gallery_codes": codes, "said": f"gallery codes {codes}, rows with a learned code"}
        | measure.figures(measure.counted(side), len(side))
        for codes, side in sides.items()
    ]


def _controls(
    model: str,
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    bits: int,
    config: EvaluateConfig,
    map_shards: MapShards,
) -> dict[str, Any] | None:
    if not config.controls.train_rows or not len(store.rows("train")):
        return None
    return measure_controls(model, store, queries, gallery, bits, config.controls, map_shards)


def _context(
    run: Path,
    name: str,
    store: Store,
    config: EvaluateConfig,
    audited: Audit,
    gallery: LabelledCodes,
    dropped: int,
) -> dict[str, Any]:
    codes = "learned" if config.gallery == "learned" else "encoded"
    trained = read_manifest(run, "run").config if (run / LEARNED).is_file() else {}
    return {
        "run": name,
        "trained": trained,
        "gallery_codes": codes,
        "gallery_without_code": dropped,
        "protocol": store.manifest.config["protocol"],
        "split_seed": store.manifest.config["seed"],
        "audit": {
            "findings": audited.findings(),
            "spoiling": audited.spoiling(),
            "rows": audited.rows,
        },
        "queries_sha256": _identity(store, store.rows("query")),
        "gallery_sha256": _identity(store, gallery.rows),
        "unique_share": len(np.unique(gallery.codes, axis=0)) / len(gallery),
    }


def _identity(store: Store, rows: NDArray[np.int64]) -> str:
    """Hash ids and contents of rows: equal only for the same images under the same names."""
    digest = hashlib.sha256()
    for id in store.ids.take(pa.array(rows)).to_pylist():
        digest.update(f"{id}\n".encode("utf-8", "surrogatepass"))
    digest.update(store.sha256(rows).tobytes())
    return digest.hexdigest()
