"""Figures of an evaluation that was never run."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.artefacts import open_artefact
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.results import CODES
from schn_ray.retrieval.code_files import read_codes

FIGURES: dict[str, Any] = {  # as metrics.json has them
    "run": "run",
    "trained": {},
    "model": "m",
    "store": "s",
    "gallery_codes": "encoded",
    "gallery_without_code": 0,
    "protocol": "random",
    "split_seed": 0,
    "audit": {"findings": [], "spoiling": [], "rows": {}},
    "queries_sha256": "q",
    "gallery_sha256": "g",
    "unique_share": 0.124,
    "bits": 32,
    "queries": 1180,
    "undefined_queries": 3,
    "gallery": 500,
    "ties": "expected",
    "map": 0.9712,
    "map_best": 0.982,
    "map_worst": 0.951,
    "map_at": {},
    "precision_at": {},
    "recall_at": {},
    "radius": 2,
    "precision_within_radius": 0.964,
    "empty_balls": 0.033,
    "pr_curve": [],
    "map_interval": None,
    "mrr": None,
    "ndcg_gain": "linear",
    "ndcg_at": {},
    "by_class": [],
    "by_length": [],
    "legacy": {},
    "reidentification": None,
    "side_by_side": [],
    "controls": None,
    "without_labels": None,
    "rescored": [],
}


def figures(**changes: Any) -> Figures:
    """Read figures in which ``changes`` are other values, under the keys of the file."""
    return Figures.model_validate(FIGURES | changes)


def evaluated_codes(evaluation: Path) -> tuple[pa.Table, NDArray[np.uint8]]:
    """Return id and uri of all rows of the store, and their codes, as an evaluation has them."""
    manifest = open_artefact(evaluation, "evaluation").manifest
    files = {
        name.removeprefix(f"{CODES}/"): (sha256, manifest.sizes[name])
        for name, sha256 in manifest.files.items()
        if name.startswith(f"{CODES}/")
    }
    return read_codes(evaluation / CODES, files)
