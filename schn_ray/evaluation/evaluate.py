"""Measure a model on a store's split: encode the store, rank the gallery for each query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.atomic_files import write_json
from schn_ray.core.directories import DirectoryWriter, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, is_finished, read_manifest
from schn_ray.core.storage.files import as_location, is_uri, join
from schn_ray.core.storage.mirror import Mirror, open_output
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits.audit import Audit, Finding, seen_in_training
from schn_ray.data.store.reader import Store, open_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.controls import MeasuredControls, measure_controls
from schn_ray.evaluation.examples import examples
from schn_ray.evaluation.features import GivenFeatures, RowFeatures, given_features
from schn_ray.evaluation.figures import Figures, GalleryCodes, GallerySide
from schn_ray.evaluation.lengths import measure_lengths
from schn_ray.evaluation.measure import Evaluator, class_figures, reidentification
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.plot_data import PlotData, bit_statistics, plot_data
from schn_ray.evaluation.rescored import measure_rescored
from schn_ray.evaluation.results import (
    AUDIT,
    CODES,
    DIAGRAMS,
    EXAMPLES,
    KIND,
    METRICS,
    write_queries,
)
from schn_ray.evaluation.split_rows import audit_summary, audited_split, rows_sha256
from schn_ray.models.load import describe_model, local_model, pinned
from schn_ray.models.model_files import LEARNED, TRAINED, HasherSpec
from schn_ray.retrieval.code_files import packed_codes, read_codes
from schn_ray.retrieval.encode import EncodeOptions, encode_shards, require_input

Floats = NDArray[np.float64]
WITHOUT_LABELS = (
    "The store has no labels, so mean average precision and all else that needs them is missing. "
    "Recall says how many of the rows with the nearest features the codes find."
)


def evaluate_run(
    run: Path | str,
    store_path: Path | str,
    out: Path | str,
    config: EvaluateConfig,
    map_shards: MapShards = map_locally,
    features: Path | str | None = None,
) -> Manifest:
    """Encode the store with a run's network and measure its queries against its gallery.

    Args:
        run: a finished run, or a model as for ``load``; it, the store and ``out`` may be at URIs.
        store_path: a store with a split.
        out: directory to write; ``evaluation.results`` lists its files.
        config: what is measured.
        map_shards: encodes images and counts parts of the gallery, on whatever machines.
        features: of the store's images, as ``embed`` wrote them with the model's own backbone.
            Codes and controls are computed from them, and no image is decoded.

    Returns:
        The manifest of ``out``; ``results.read_figures`` reads the figures.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: the split is empty or would spoil the figures, a learned gallery has no
            codes, or ``features`` are those of another backbone or of other images.
    """
    name, model = Path(as_location(run)).name, pinned(run)
    run = local_model(model)
    store, described = open_store(store_path), describe_model(run)
    spec = described.spec if config.bits is None else described.spec.first(config.bits)
    if config.gallery != "encoded" and config.bits is not None:
        raise SchnRayError(
            f"learned codes are of all {described.spec.bits} bits: leave out --set bits, or use "
            "--gallery encoded"
        )
    audited = _audited(store, config, run)
    made_from = described.recorded() | {"store": store.manifest.fingerprint}
    given = None if features is None else given_features(features, store, spec)
    if given is not None:
        made_from["features"] = given.fingerprint
    requested = config.model_dump(mode="json")
    if not config.rescore:
        del requested["rescore"]  # finished evaluations of before stay finished
    if config.rescore_candidates is None:
        del requested["rescore_candidates"]
    if config.bits is None:
        del requested["bits"]
    request = requested, made_from
    with open_output(out) as mirror, new_directory(mirror.local, KIND, *request) as draft:
        codes = _codes_of(mirror, draft)
        encoded, files = _encode_store(model, spec, store, codes, config, map_shards, given)
        draft.known |= {f"{CODES}/{name}": known for name, known in files.items()}
        queries = _ranked(store, store.rows("query"), encoded)
        gallery, without_code = _gallery(run, store, encoded, config.gallery == "learned")
        evaluator = Evaluator(queries, spec.bits, config, map_shards)
        if store.classes:
            measured = _by_labels(run, store, encoded, gallery, evaluator, config)
        else:
            measured = _without_labels(gallery, evaluator)
        # the controls rank the network's own codes, whichever codes the other figures are for
        own = _ranked(store, gallery.rows, encoded)
        features_of_rows = RowFeatures(model, store, map_shards, given)
        rescored = measure_rescored(
            config.rescore if store.classes else (),
            model,
            features_of_rows,
            queries,
            gallery,
            config.controls,
            config.rescore_candidates,
            spec.bits,
        )
        controls = _controls(features_of_rows, store, queries, own, spec.bits, config)
        nested = store.classes and config.gallery != "learned"
        lengths = measure_lengths(
            spec.lengths if nested else (), queries, gallery, config, map_shards
        )
        figures = Figures(
            **measured.fields,
            **_context(run, store, audited, gallery),
            model=described.fingerprint,
            store=store.manifest.fingerprint,
            run=name,
            gallery_codes="learned" if config.gallery == "learned" else "encoded",
            gallery_without_code=without_code,
            controls=controls.figures if controls else None,
            rescored=rescored,
            by_length=lengths.figures,
        )
        write_json(draft.path / METRICS, figures.to_json())
        write_json(draft.path / AUDIT, audited.to_json())
        write_json(draft.path / DIAGRAMS, measured.plots.to_json())
        shown = examples(store, queries, gallery, measured.average_precision, config.examples)
        write_json(draft.path / EXAMPLES, [example.to_json() for example in shown])
        columns = measured.per_query | lengths.per_query
        columns |= controls.recall if controls else {}
        write_queries(draft.path, store.ids.take(pa.array(queries.rows)), columns)
        draft.counts |= {"queries": len(queries), "gallery": len(gallery)}
    return read_manifest(mirror.local, KIND)


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured by labels, or is missing without them.

    Attributes:
        fields: of ``Figures``.
        per_query: name -> a figure of each query [Q].
        plots: the numbers of the diagrams.
    """

    fields: dict[str, Any]
    per_query: dict[str, Floats]
    plots: PlotData

    @property
    def average_precision(self) -> Floats:
        return self.per_query["average_precision"]


def _by_labels(
    run: Path,
    store: Store,
    encoded: NDArray[np.uint8],
    gallery: LabelledCodes,
    evaluator: Evaluator,
    config: EvaluateConfig,
) -> _Measured:
    queries, h = evaluator.queries, evaluator.histograms(gallery)
    fields = dict(evaluator.figures(h, len(gallery))) | {
        "by_class": class_figures(store.classes, queries, h),
        "legacy": evaluator.legacy(gallery),
        "reidentification": reidentification(store, queries, gallery, evaluator.bits),
        "side_by_side": _side_by_side(run, store, encoded, evaluator, config),
    }
    plots = plot_data(queries, gallery, h, store.classes)
    return _Measured(fields, evaluator.per_query(h), plots)


def _without_labels(gallery: LabelledCodes, evaluator: Evaluator) -> _Measured:
    fields = dict(evaluator.no_figures(len(gallery))) | {
        "by_class": (),
        "legacy": {},
        "side_by_side": (),
        "without_labels": WITHOUT_LABELS,
    }
    undefined = np.full(len(evaluator.queries), np.nan)
    plots = PlotData(bits=bit_statistics(gallery.codes, evaluator.bits))
    return _Measured(fields, {"average_precision": undefined}, plots)


def _audited(store: Store, config: EvaluateConfig, run: Path) -> Audit:
    if not store.classes and config.gallery != "encoded":
        raise SchnRayError(
            f"--gallery {config.gallery}: learned codes are solved from labels, and this store has "
            "none; use --gallery encoded"
        )
    return audited_split(store, config, _trained_on(run, store))


def _trained_on(run: Path, store: Store) -> list[Finding]:
    """Find queries of another store than the run's own that the run was trained on."""
    if not is_finished(run):  # a model alone does not say what it was trained on
        return []
    artefact = open_artefact(run, "run")
    if artefact.manifest.made_from["store"] == store.manifest.fingerprint:
        return []  # its own queries are audited above
    trained = pq.read_table(artefact.file(TRAINED))
    return seen_in_training(store.identities(store.rows("query")), trained)


def _codes_of(mirror: Mirror, draft: DirectoryWriter) -> str:
    """Return where all workers can write codes."""
    if not is_uri(mirror.location):
        return str(draft.path.absolute() / CODES)
    codes = join(mirror.location, CODES)
    return codes


def _encode_store(
    model: str,
    spec: HasherSpec,
    store: Store,
    codes: str,
    config: EvaluateConfig,
    map_shards: MapShards,
    given: GivenFeatures | None,
) -> tuple[NDArray[np.uint8], dict[str, tuple[str, int]]]:
    """Return the codes of all rows, and name -> (SHA-256, bytes) of each file of codes."""
    location = store.location if given is None else given.location
    source = open_source(location, SourceConfig(kind="store"))
    vectors = require_input(source, spec)
    options = EncodeOptions(model, config.batch_size, vectors=vectors, bits=config.bits)
    files = encode_shards(source, source.shards(), options, codes, map_shards)
    table, packed = read_codes(codes, files)
    # features may be of more rows than the store has, and in another order
    positions = pc.index_in(store.ids.cast(pa.string()), table["id"].combine_chunks())
    if positions.null_count:
        raise SchnRayError("rows of the store could not be encoded; verify it with schn-ray check")
    return packed[positions.to_numpy()], files


def _ranked(store: Store, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> LabelledCodes:
    return LabelledCodes(rows, codes[rows], store.labels[rows])


def _gallery(
    run: Path, store: Store, encoded: NDArray[np.uint8], learned: bool
) -> tuple[LabelledCodes, int]:
    """Return the gallery with encoded or learned codes, and how many of its rows have none."""
    rows = store.rows("gallery")
    if not learned:
        return _ranked(store, rows, encoded), 0
    table = pq.read_table(open_artefact(run, "run").file(LEARNED))
    positions = pc.index_in(store.ids.take(pa.array(rows)), value_set=table["id"].combine_chunks())
    has_code = positions.is_valid().to_numpy(zero_copy_only=False)
    if not has_code.any():
        raise SchnRayError(
            "no gallery row has a learned code: in this split the gallery is not part of training. "
            "Use --gallery encoded, or a protocol such as cifar10-59k"
        )
    codes = packed_codes(table)[positions.drop_null().to_numpy()]
    ranked = rows[has_code]
    return LabelledCodes(ranked, codes, store.labels[ranked]), int((~has_code).sum())


def _side_by_side(
    run: Path,
    store: Store,
    encoded: NDArray[np.uint8],
    evaluator: Evaluator,
    config: EvaluateConfig,
) -> tuple[GallerySide, ...]:
    """Measure learned codes, and encoded ones of the very same rows where others have none."""
    if config.gallery != "both":
        return ()
    learned, without_code = _gallery(run, store, encoded, learned=True)
    sides: dict[GalleryCodes, LabelledCodes] = {"learned": learned}
    if without_code:  # else the difference would be that of two galleries
        sides["encoded"] = _ranked(store, learned.rows, encoded)
    return tuple(
        GallerySide(
            **dict(evaluator.figures(evaluator.histograms(side), len(side))),
            gallery_codes=codes,
            description=f"gallery codes {codes}, rows with a learned code",
        )
        for codes, side in sides.items()
    )


def _controls(
    features: RowFeatures,
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    bits: int,
    config: EvaluateConfig,
) -> MeasuredControls | None:
    # without labels, recall is measured even where no row was left to fit anything on
    if not config.controls.train_rows or not (len(store.rows("train")) or not store.classes):
        return None
    return measure_controls(
        features, store, queries, gallery, bits, config.controls, config.recall_at
    )


def _context(run: Path, store: Store, audited: Audit, gallery: LabelledCodes) -> dict[str, Any]:
    """Return the fields of ``Figures`` that say what was measured."""
    prepared = store.manifest.config
    return {
        "trained": read_manifest(run, "run").config if (run / LEARNED).is_file() else {},
        "protocol": store.protocol,
        "split_seed": prepared["seed"],
        "audit": audit_summary(audited),
        "queries_sha256": rows_sha256(store, store.rows("query")),
        "gallery_sha256": rows_sha256(store, gallery.rows),
        "unique_share": len(np.unique(gallery.codes, axis=0)) / len(gallery),
    }
