"""Measure codes or embeddings of another program by the same metrics, controls and files.

Nothing is known of the model and its training, so the audit compares ids and embeddings only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.atomic_files import write_json
from schn_ray.core.directories import new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.files import as_location
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.store.reader import Store, open_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.controls import MeasuredControls, Sides, drawn_sides, measure_sides
from schn_ray.evaluation.examples import ExampleQuery, examples
from schn_ray.evaluation.figures import AuditSummary, Figures
from schn_ray.evaluation.foreign_files import ForeignFiles, ForeignRows, read_foreign
from schn_ray.evaluation.foreign_stored import stored_foreign
from schn_ray.evaluation.label_files import Labels
from schn_ray.evaluation.measure import Evaluator, class_figures, reidentification
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.plot_data import PlotData, bit_statistics, plot_data
from schn_ray.evaluation.results import AUDIT, DIAGRAMS, EXAMPLES, KIND, METRICS, write_queries
from schn_ray.evaluation.split_rows import audit_summary, audited_split, rows_sha256

PROTOCOL = "given"
WITHOUT_LABELS = (
    "There are no labels, so mean average precision and all else that needs them is missing. "
    "Recall says how many of the rows with the nearest embeddings the codes find."
)


def measure_foreign(
    files: ForeignFiles,
    out: Path | str,
    config: EvaluateConfig,
    map_shards: MapShards = map_locally,
) -> Manifest:
    """Measure codes or embeddings of another program.

    Args:
        files: what is measured.
        out: directory to write, as ``evaluate_run`` does; without ``codes/``.
        config: what is measured; ``gallery`` and ``rescore`` do not apply.
        map_shards: counts parts of the gallery, on whatever machines.

    Returns:
        The manifest of ``out``.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: files that do not fit together, no labels and no embeddings, queries that
            are in the gallery, or, with a store, as ``stored_foreign`` and ``audited_split``.
    """
    split = _foreign_split(files, config)
    queries, gallery = split.queries, split.gallery
    request = config.model_dump(mode="json"), split.made_from
    with open_output(out) as mirror, new_directory(mirror.local, KIND, *request) as draft:
        query_side, ranked = queries.labelled(), gallery.labelled()
        evaluator = Evaluator(query_side, gallery.codes.bits, config, map_shards)
        fields, per_query, plots = _measured(evaluator, ranked, gallery.labels, split.store)
        controls = _controls(queries, gallery, query_side, ranked, config)
        figures = Figures(
            **fields,
            **split.context,
            run=Path(as_location(out)).name,
            trained={},
            model=split.made_from["codes"],
            gallery_codes="encoded" if files.encoded else "given",
            gallery_without_code=0,
            unique_share=len(np.unique(ranked.codes, axis=0)) / len(ranked),
            side_by_side=(),
            controls=controls.figures if controls else None,
        )
        shown: list[ExampleQuery] = []
        if split.store is not None and split.store.has_images:
            precision = per_query["average_precision"]
            shown = examples(split.store, query_side, ranked, precision, config.examples)
        write_json(draft.path / METRICS, figures.to_json())
        write_json(draft.path / AUDIT, split.audited)
        write_json(draft.path / DIAGRAMS, plots.to_json())
        write_json(draft.path / EXAMPLES, [example.to_json() for example in shown])
        ids = queries.ids or [str(row) for row in range(len(query_side))]
        columns = per_query | (controls.recall if controls else {})
        write_queries(draft.path, pa.array(ids, pa.string()), columns)
        draft.counts |= {"queries": len(query_side), "gallery": len(ranked)}
    return read_manifest(mirror.local, KIND)


@dataclass(frozen=True, eq=False)
class _ForeignSplit:
    """What is measured.

    Attributes:
        queries: of another program.
        gallery: likewise.
        made_from: name -> fingerprint.
        context: fields of ``Figures`` that say of what rows the figures are.
        audited: content of ``audit.json``.
        store: that they are rows of; None without one.
    """

    queries: ForeignRows
    gallery: ForeignRows
    made_from: dict[str, str]
    context: dict[str, Any]
    audited: dict[str, Any]
    store: Store | None = None


def _foreign_split(files: ForeignFiles, config: EvaluateConfig) -> _ForeignSplit:
    if files.store is not None:
        return _stored_split(files, open_store(as_location(files.store)), config)
    if files.encoded:
        raise SchnRayError("--gallery encoded needs --store STORE: only its runs have such codes")
    queries, gallery, made_from = read_foreign(files)
    audited = _audited(queries, gallery, config)
    context = {
        "store": made_from.get("labels", ""),
        "protocol": PROTOCOL,
        "split_seed": 0,
        "audit": audited,
        "queries_sha256": queries.identity,
        "gallery_sha256": gallery.identity,
    }
    return _ForeignSplit(queries, gallery, made_from, context, audited.to_json())


def _stored_split(files: ForeignFiles, store: Store, config: EvaluateConfig) -> _ForeignSplit:
    rows = stored_foreign(files, store, config)
    if not store.classes and files.embeddings is None:
        raise SchnRayError(
            f"{store.location} has no labels, so codes alone cannot be measured: give --embeddings "
            "FILE, whose exact neighbours need no labels"
        )
    audited = audited_split(store, config, rows.findings)
    made_from = {"codes": rows.fingerprint, "store": store.manifest.fingerprint}
    if files.encoded:
        made_from["gallery_codes"] = "encoded"
    context = {
        "store": store.manifest.fingerprint,
        "protocol": store.protocol,
        "split_seed": store.manifest.config["seed"],
        "audit": audit_summary(audited),
        "queries_sha256": rows_sha256(store, rows.queries.labelled().rows),
        "gallery_sha256": rows_sha256(store, rows.gallery.labelled().rows),
    }
    return _ForeignSplit(rows.queries, rows.gallery, made_from, context, audited.to_json(), store)


def _measured(
    evaluator: Evaluator, gallery: LabelledCodes, labels: Labels | None, store: Store | None
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]], PlotData]:
    """Return fields of ``Figures``, a figure of each query, and the numbers of the diagrams."""
    queries = evaluator.queries
    if labels is None:
        fields = dict(evaluator.no_figures(len(gallery))) | {
            "by_class": (),
            "legacy": {},
            "without_labels": WITHOUT_LABELS,
        }
        undefined = {"average_precision": np.full(len(queries), np.nan)}
        return fields, undefined, PlotData(bits=bit_statistics(gallery.codes, evaluator.bits))
    h = evaluator.histograms(gallery)
    fields = dict(evaluator.figures(h, len(gallery))) | {
        "by_class": class_figures(labels.classes, queries, h),
        "legacy": evaluator.legacy(gallery),
    }
    if store is not None:
        fields["reidentification"] = reidentification(store, queries, gallery, evaluator.bits)
    return fields, evaluator.per_query(h), plot_data(queries, gallery, h, labels.classes)


def _controls(
    queries: ForeignRows,
    gallery: ForeignRows,
    query_side: LabelledCodes,
    ranked: LabelledCodes,
    config: EvaluateConfig,
) -> MeasuredControls | None:
    """Rank embeddings by cosine, and random codes; nothing is fitted, as no row is for that."""
    if queries.features is None or gallery.features is None or not config.controls.train_rows:
        return None
    drawn, others, chosen, _ = drawn_sides(query_side, ranked, config.controls)
    query_features, other = queries.features_of(drawn), gallery.features_of(others)
    nothing = csr_array(np.zeros((0, ranked.labels.shape[1]), np.uint8))
    sides = Sides(other[:0], nothing, query_features, other, drawn, others, gallery.codes.bits)
    return measure_sides(sides, chosen, len(query_side), config.controls.seed, config.recall_at)


def _audited(queries: ForeignRows, gallery: ForeignRows, config: EvaluateConfig) -> AuditSummary:
    findings, spoiling = list[str](), list[str]()
    if queries.ids is not None and gallery.ids is not None:
        twice = set(gallery.ids).intersection(queries.ids)
        if twice:
            line = f"{len(twice):,} queries are in the gallery, by id, such as {min(twice)!r}"
            findings.append(line)
            spoiling.append(line)
    if queries.features is not None and gallery.features is not None:
        known = {row.tobytes() for row in np.ascontiguousarray(gallery.features)}
        equal = sum(row.tobytes() in known for row in np.ascontiguousarray(queries.features))
        if equal:
            findings.append(f"{equal:,} queries have the very embedding of a gallery row")
    if spoiling and config.audit == "refuse":
        raise SchnRayError(
            f"this split would spoil the figures: {spoiling[0]}. Leave them out of the gallery, or "
            "measure all the same with --set audit=report"
        )
    rows = {"query": len(queries.codes.packed), "gallery": len(gallery.codes.packed)}
    return AuditSummary(findings=tuple(findings), spoiling=tuple(spoiling), rows=rows)
