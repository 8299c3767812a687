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

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.storage.cache import directory_kind, local_copy
from schn_ray.core.storage.files import as_location

METRICS, EXAMPLES, DIAGRAMS, AUDIT = "metrics.json", "examples.json", "diagrams.json", "audit.json"
QUERIES, CODES = "queries.parquet", "codes"
KIND = "evaluation"


def read_figures(out: Path | str) -> dict[str, Any]:
    """Read the figures of a finished evaluation."""
    return dict(_read(out, METRICS))


def read_examples(out: Path | str) -> list[dict[str, Any]]:
    """Read the example queries of a finished evaluation."""
    return list(_read(out, EXAMPLES))


def read_diagrams(out: Path | str) -> dict[str, Any]:
    """Read what a finished evaluation has for pictures."""
    return dict(_read(out, DIAGRAMS))


def read_queries(out: Path | str) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Read the queries' ids, and name -> a figure of each [Q]; NaN where it is undefined."""
    out = local_copy(out)
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


def default_evaluation(run: Path | str) -> str:
    """Return where ``evaluate`` writes if nobody says: beside the run."""
    return f"{as_location(run)}-evaluation"


def find_evaluation(path: Path | str) -> Path:
    """Return the evaluation, given it or the run that it stands beside.

    Raises:
        SchnRayError: there is none.
    """
    beside = default_evaluation(path)
    for place in (as_location(path), beside):
        if directory_kind(place) == KIND:
            return local_copy(place)
    raise SchnRayError(
        f"{path} is no finished evaluation, and {beside} is none either: run "
        f"schn-ray evaluate {path} --store STORE first"
    )


def _read(out: Path | str, name: str) -> Any:
    out = local_copy(out)
    read_manifest(out, KIND)
    return json.loads((out / name).read_text())
