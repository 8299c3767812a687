"""Measure a model on a store's split: queries and gallery coded, exact metrics, examples.

DIR/codes/          codes of all rows of the store, encoded by the network
DIR/metrics.json    the figures, with what they were measured on
DIR/examples.json   a dozen queries with their ten nearest gallery images
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.code_files import packed_codes
from schn_ray.config import EvaluateConfig, SourceConfig
from schn_ray.encode import Coding, encode_shards
from schn_ray.errors import SchnRayError
from schn_ray.hasher import fingerprint, load
from schn_ray.histograms import distance_histograms
from schn_ray.manifest import Manifest, new_directory, read_manifest, write_json
from schn_ray.parts import read_codes
from schn_ray.protocols import Audit, audit
from schn_ray.sources import open_source
from schn_ray.store import MapShards, Store, in_this_process, open_store
from schn_ray.summary import Summary, summary
from schn_ray.training import LEARNED

METRICS, EXAMPLES, CODES = "metrics.json", "examples.json", "codes"
_NEIGHBOURS = 10


@dataclass(frozen=True)
class Ranked:
    """Rows of a store with their codes: the queries, or the gallery that they rank.

    Attributes:
        rows: [m] rows of the store.
        codes: packed [m, ceil(K / 8)].
        labels: [m, C].
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]
    labels: csr_array


def evaluate(
    run: Path,
    store_path: Path,
    out: Path,
    config: EvaluateConfig,
    map_shards: MapShards = in_this_process,
) -> Manifest:
    """Code the store with a run's network and measure its queries against its gallery.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: the split is empty or overlaps, or a learned gallery has no codes.
    """
    store, bits = open_store(store_path), load(run).bits
    audited = _audited(store)
    made_from = {"model": fingerprint(run), "store": store.manifest.fingerprint}
    with new_directory(out, "evaluation", config.model_dump(mode="json"), made_from) as draft:
        encoded = _encode_store(run, store, store_path, draft.path, config, map_shards)
        queries = _ranked(store, store.rows("query"), encoded)
        gallery, dropped = _gallery(run, store, encoded, config)
        histograms = distance_histograms(
            queries.codes, queries.labels, gallery.codes, gallery.labels, bits
        )
        ks = [k for k in config.ks if k <= len(gallery.rows)]
        measured = summary(histograms, ks, config.radius)
        figures = _context(store, config, audited, gallery, dropped) | _figures(measured)
        write_json(draft.path / METRICS, figures | made_from)
        write_json(draft.path / EXAMPLES, _examples(store, queries, gallery, config.examples))
        draft.counts |= {"queries": len(queries.rows), "gallery": len(gallery.rows)}
    return read_manifest(out, "evaluation")


def read_measured(out: Path) -> dict[str, Any]:
    """Read the figures of a finished evaluation."""
    read_manifest(out, "evaluation")
    return dict(json.loads((out / METRICS).read_text()))


def read_examples(out: Path) -> list[dict[str, Any]]:
    """Read the example queries of a finished evaluation."""
    read_manifest(out, "evaluation")
    return list(json.loads((out / EXAMPLES).read_text()))


def as_text(measured: dict[str, Any]) -> str:
    """Return the figures as lines to read."""
    lines = [
        f"mAP {_shown(measured['map'])}, gallery codes: {measured['gallery_codes']}",
        f"  {measured['queries']:,} queries, {measured['gallery']:,} gallery images, "
        f"{measured['bits']} bits, protocol {measured['protocol']}",
        f"  ties: expected over their orders; worst order {_shown(measured['map_worst'])}, "
        f"best {_shown(measured['map_best'])}",
        f"  precision within radius {measured['radius']}: "
        f"{_shown(measured['precision_within_radius'])}, empty balls "
        f"{_shown(measured['empty_balls'])}",
        f"  distinct codes in the gallery: {measured['unique_share']:.1%}",
    ]
    lines += [f"  audit: {finding}" for finding in measured["audit"]["findings"]]
    if measured["undefined_queries"]:
        lines.append(f"  left out: {measured['undefined_queries']} queries with nothing relevant")
    if measured["gallery_without_code"]:
        lines.append(f"  left out: {measured['gallery_without_code']} rows never sampled")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _audited(store: Store) -> Audit:
    for role in ("query", "gallery"):
        if not len(store.rows(role)):
            raise SchnRayError(f"the store's split has no {role} rows: nothing to measure")
    found = audit(store.split, store.ids, store.sha256(np.arange(len(store))), store.labels)
    if found.query_in_gallery or found.query_in_train:
        raise SchnRayError(
            "figures would flatter: " + "; ".join(found.findings()) + ". Prepare the store again "
            "with a split in which queries are seen by nobody"
        )
    return found


def _encode_store(
    run: Path,
    store: Store,
    store_path: Path,
    out: Path,
    config: EvaluateConfig,
    map_shards: MapShards,
) -> NDArray[np.uint8]:
    source = open_source(store.location, SourceConfig(kind="store"))
    codes = out / CODES
    coding = Coding(run.resolve(), config.batch_size)
    encode_shards(source, source.shards(), coding, codes, map_shards)
    table, packed = read_codes(codes)
    if not table["id"].combine_chunks().equals(store.ids.cast(pa.string())):
        raise SchnRayError("rows of the store could not be coded; verify it with schn-ray check")
    return packed


def _ranked(store: Store, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> Ranked:
    return Ranked(rows, codes[rows], store.labels[rows])


def _gallery(
    run: Path, store: Store, encoded: NDArray[np.uint8], config: EvaluateConfig
) -> tuple[Ranked, int]:
    """Return the gallery with the codes asked for, and how many of its rows have none."""
    rows = store.rows("gallery")
    if config.gallery == "encoded":
        return _ranked(store, rows, encoded), 0
    table = pq.read_table(run / LEARNED)
    places = pc.index_in(store.ids.take(pa.array(rows)), value_set=table["id"].combine_chunks())
    found = places.is_valid().to_numpy(zero_copy_only=False)
    if not found.any():
        raise SchnRayError(
            "no gallery row has a learned code: in this split the gallery is not part of training. "
            "Use --gallery encoded, or a protocol such as cifar10-59k"
        )
    learned = packed_codes(table)[places.drop_null().to_numpy()]
    kept = rows[found]
    return Ranked(kept, learned, store.labels[kept]), int((~found).sum())


def _context(
    store: Store, config: EvaluateConfig, audited: Audit, gallery: Ranked, dropped: int
) -> dict[str, Any]:
    return {
        "gallery_codes": config.gallery,
        "gallery_without_code": dropped,
        "protocol": store.manifest.config["protocol"],
        "split_seed": store.manifest.config["seed"],
        "audit": asdict(audited) | {"findings": audited.findings()},
        "unique_share": len(np.unique(gallery.codes, axis=0)) / len(gallery.codes),
    }


def _figures(measured: Summary) -> dict[str, Any]:
    curve = measured.pr_curve
    return {
        "bits": measured.bits,
        "queries": measured.queries,
        "undefined_queries": measured.undefined_queries,
        "gallery": measured.gallery,
        "ties": measured.ties,
        "map": measured.map,
        "map_best": measured.map_best,
        "map_worst": measured.map_worst,
        "map_at": {
            str(at.k): {"relevant": at.map_relevant, "min": at.map_min, "hits": at.map_hits}
            for at in measured.at
        },
        "precision_at": {str(at.k): at.precision for at in measured.at},
        "recall_at": {str(at.k): at.recall for at in measured.at},
        "radius": measured.radius,
        "precision_within_radius": measured.precision_within_radius,
        "empty_balls": measured.empty_balls,
        "pr_curve": [
            {"threshold": d, "precision": precision, "recall": recall, "empty": empty}
            for d, (precision, recall, empty) in enumerate(
                zip(curve.precision, curve.recall, curve.empty, strict=True)
            )
        ],
    }


def _examples(store: Store, queries: Ranked, gallery: Ranked, count: int) -> list[dict[str, Any]]:
    chosen = np.unique(np.linspace(0, len(queries.rows) - 1, count).round().astype(np.int64))
    return [_example(store, queries, int(query), gallery) for query in chosen]


def _example(store: Store, queries: Ranked, query: int, gallery: Ranked) -> dict[str, Any]:
    distances = np.bitwise_count(queries.codes[query] ^ gallery.codes).sum(axis=1, dtype=np.int64)
    nearest = np.argsort(distances, kind="stable")[:_NEIGHBOURS]
    relevant = (gallery.labels[nearest] @ queries.labels[[query]].T).toarray()[:, 0] > 0
    neighbours = [
        _described(store, int(gallery.rows[place]))
        | {"distance": int(distances[place]), "relevant": bool(right)}
        for place, right in zip(nearest, relevant, strict=True)
    ]
    return {"query": _described(store, int(queries.rows[query])), "neighbours": neighbours}


def _described(store: Store, row: int) -> dict[str, Any]:
    labels = [store.classes[label] for label in store.labels[[row]].indices]
    return {"id": store.ids[row].as_py(), "uri": store.uri(row), "labels": labels}
