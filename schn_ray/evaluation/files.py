"""What an evaluation leaves on disk, and how it is read again.

DIR/metrics.json     the figures, with what they were measured on
DIR/queries.parquet  a row a query: id and its own figures; null where undefined
DIR/examples.json    queries that do best, worst and in between, with their nearest images
DIR/diagrams.json    the numbers behind a report's pictures
DIR/audit.json       what the split audit found, with all rows
DIR/codes/           codes of all rows of the store, encoded by the network
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.errors import SchnRayError
from schn_ray.manifest import MANIFEST, read_manifest

METRICS, EXAMPLES, DIAGRAMS, AUDIT = "metrics.json", "examples.json", "diagrams.json", "audit.json"
QUERIES, CODES = "queries.parquet", "codes"
KIND = "evaluation"


def read_measured(out: Path) -> dict[str, Any]:
    """Read the figures of a finished evaluation."""
    return dict(_read(out, METRICS))


def read_examples(out: Path) -> list[dict[str, Any]]:
    """Read the example queries of a finished evaluation."""
    return list(_read(out, EXAMPLES))


def read_diagrams(out: Path) -> dict[str, Any]:
    """Read what a finished evaluation has for pictures."""
    return dict(_read(out, DIAGRAMS))


def read_queries(out: Path) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Read the queries' ids, and name -> a figure of each [Q]; NaN where it is undefined."""
    read_manifest(out, KIND)
    table = pq.read_table(out / QUERIES)
    values = {
        name: table[name].to_numpy().astype(np.float64)
        for name in table.column_names
        if name != "id"
    }
    return table["id"].to_pylist(), values


def write_queries(out: Path, ids: pa.Array, values: dict[str, NDArray[np.float64]]) -> None:
    """Write a figure a query, under its name."""
    columns = {name: pa.array(column, from_pandas=True) for name, column in values.items()}
    pq.write_table(pa.table({"id": ids.cast(pa.string()), **columns}), out / QUERIES)


def default_evaluation(run: Path) -> Path:
    """Return where ``evaluate`` writes if nobody says: beside the run."""
    run = run.absolute()
    return run.with_name(f"{run.name}-evaluation")


def find_evaluation(path: Path) -> Path:
    """Return the evaluation, given it or the run that it stands beside.

    Raises:
        SchnRayError: there is none.
    """
    manifest = path / MANIFEST
    if manifest.is_file() and json.loads(manifest.read_text()).get("kind") == KIND:
        return path
    beside = default_evaluation(path)
    if (beside / MANIFEST).is_file():
        return beside
    raise SchnRayError(
        f"{path} is no finished evaluation, and {beside} is none either: run "
        f"schn-ray evaluate {path} --store STORE first"
    )


def _read(out: Path, name: str) -> Any:
    read_manifest(out, KIND)
    return json.loads((out / name).read_text())
