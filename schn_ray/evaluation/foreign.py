"""Measure codes or embeddings of another program by the same metrics, controls and files.

Nothing is known of the model and its training, so the audit compares ids and embeddings only.
"""

from __future__ import annotations

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
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.controls import MeasuredControls, Sides, drawn_sides, measure_sides
from schn_ray.evaluation.figures import AuditSummary, Figures
from schn_ray.evaluation.foreign_files import ForeignFiles, ForeignRows, read_foreign
from schn_ray.evaluation.label_files import Labels
from schn_ray.evaluation.measure import Evaluator, class_figures
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.plot_data import PlotData, bit_statistics, plot_data
from schn_ray.evaluation.results import AUDIT, DIAGRAMS, EXAMPLES, KIND, METRICS, write_queries

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
        SchnRayError: files that do not fit together, no labels and no embeddings, or queries that
            are in the gallery.
    """
    queries, gallery, made_from = read_foreign(files)
    audited = _audited(queries, gallery, config)
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, KIND, config.model_dump(mode="json"), made_from) as draft,
    ):
        query_side, ranked = queries.labelled(), gallery.labelled()
        evaluator = Evaluator(query_side, gallery.codes.bits, config, map_shards)
        fields, per_query, plots = _measured(evaluator, ranked, gallery.labels)
        controls = _controls(queries, gallery, query_side, ranked, config)
        figures = Figures(
            **fields,
            run=Path(as_location(out)).name,
            trained={},
            model=made_from["codes"],
            store=made_from.get("labels", ""),
            gallery_codes="given",
            gallery_without_code=0,
            protocol=PROTOCOL,
            split_seed=0,
            audit=audited,
            queries_sha256=queries.identity,
            gallery_sha256=gallery.identity,
            unique_share=len(np.unique(ranked.codes, axis=0)) / len(ranked),
            side_by_side=(),
            controls=controls.figures if controls else None,
        )
        write_json(draft.path / METRICS, figures.to_json())
        write_json(draft.path / AUDIT, audited.to_json())
        write_json(draft.path / DIAGRAMS, plots.to_json())
        write_json(draft.path / EXAMPLES, [])
        ids = queries.ids or [str(row) for row in range(len(query_side))]
        columns = per_query | (controls.recall if controls else {})
        write_queries(draft.path, pa.array(ids, pa.string()), columns)
        draft.counts |= {"queries": len(query_side), "gallery": len(ranked)}
    return read_manifest(mirror.local, KIND)


def _measured(
    evaluator: Evaluator, gallery: LabelledCodes, labels: Labels | None
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
    query_features, other = (
        np.asarray(features[rows], np.float32)
        for features, rows in ((queries.features, drawn.rows), (gallery.features, others.rows))
    )
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
