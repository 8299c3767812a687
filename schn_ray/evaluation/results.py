"""The files of an evaluation, and how they are read.

DIR/metrics.json     the figures, and what they were measured on
DIR/queries.parquet  a row a query: its id and its own figures; null where undefined
DIR/examples.json    queries that do best, worst and in between, with their nearest images
DIR/diagrams.json    the numbers behind the diagrams of a report
DIR/audit.json       what the split audit reported, with all rows
DIR/codes/           codes of all rows of the store, encoded by the network
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.atomic_files import writing
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind, local_copy
from schn_ray.core.storage.files import as_location, join
from schn_ray.evaluation.examples import ExampleQuery
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import PlotData
from schn_ray.models.hub import hub_address

METRICS, EXAMPLES, DIAGRAMS, AUDIT = "metrics.json", "examples.json", "diagrams.json", "audit.json"
QUERIES, CODES = "queries.parquet", "codes"
KIND = "evaluation"
T = TypeVar("T")


def read_figures(out: Path | str) -> Figures:
    """Read the figures of a finished evaluation.

    Args:
        out: the evaluation, a directory or a URI.

    Raises:
        SchnRayError: it is no finished evaluation, or its file is damaged.
    """
    return _read(out, METRICS, TypeAdapter(Figures))


def read_examples(out: Path | str) -> list[ExampleQuery]:
    """Read the example queries of a finished evaluation.

    Args:
        out: the evaluation, a directory or a URI.

    Raises:
        SchnRayError: it is no finished evaluation, or its file is damaged.
    """
    return _read(out, EXAMPLES, TypeAdapter(list[ExampleQuery]))


def read_plot_data(out: Path | str) -> PlotData:
    """Read the numbers behind the diagrams of a finished evaluation.

    Args:
        out: the evaluation, a directory or a URI.

    Raises:
        SchnRayError: it is no finished evaluation, or its file is damaged.
    """
    return _read(out, DIAGRAMS, TypeAdapter(PlotData))


def read_queries(out: Path | str) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
    """Read what was measured for each query.

    Args:
        out: the evaluation, a directory or a URI.

    Returns:
        The ids of the queries, and name -> a figure of each [Q]; NaN where it is undefined.

    Raises:
        SchnRayError: it is no finished evaluation, or damaged.
    """
    table = query_table(out)
    values = {
        name: table[name].to_numpy().astype(np.float64)
        for name in table.column_names
        if name != "id"
    }
    return table["id"].to_pylist(), values


def query_table(out: Path | str) -> pa.Table:
    """Read what was measured for each query as a table, null where it is undefined.

    Args:
        out: the evaluation, a directory or a URI.

    Raises:
        SchnRayError: it is no finished evaluation, or damaged.
    """
    return pq.read_table(open_artefact(local_copy(out), KIND).file(QUERIES))


def write_queries(out: Path, ids: pa.Array, values: dict[str, NDArray[np.float64]]) -> None:
    """Write the figures of each query.

    Args:
        out: the directory of the evaluation.
        ids: of the queries [Q].
        values: name -> a figure of each query [Q]; NaN where it is undefined.
    """
    columns = {name: pa.array(column, from_pandas=True) for name, column in values.items()}
    with writing(out / QUERIES):
        pq.write_table(pa.table({"id": ids.cast(pa.string()), **columns}), out / QUERIES)


def default_evaluation(run: Path | str) -> str:
    """Return where ``evaluate`` writes by default: next to the run.

    Args:
        run: a directory or a URI; one on the hub is written to the working directory.
    """
    address = hub_address(run)
    stem = as_location(run) if address is None else address.repository.split("/")[1]
    return f"{stem}-evaluation"


def find_evaluation(path: Path | str) -> Path:
    """Return a local copy of an evaluation.

    Args:
        path: the evaluation, or the run next to which it lies.

    Raises:
        SchnRayError: there is none.
    """
    default = default_evaluation(path)
    for location in (as_location(path), default):
        if directory_kind(location) == KIND:
            return local_copy(location)
    raise SchnRayError(
        f"{path} is no finished evaluation, and {default} is none either: run "
        f"schn-ray evaluate {path} --store STORE first"
    )


def _read(out: Path | str, name: str, adapter: TypeAdapter[T]) -> T:
    data = open_artefact(local_copy(out), KIND).read(name)
    try:
        return adapter.validate_python(json.loads(data))
    except (OSError, ValueError) as error:
        raise SchnRayError(
            f"{join(as_location(out), name)} is damaged, or of another version of schn-ray "
            f"({_reason(error)}): run schn-ray evaluate again, with another --out"
        ) from error


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {first['msg']}"
    return str(error)
