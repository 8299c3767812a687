"""The trials of a search as tables: CSV for people, Parquet with types and curves for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.tuning.space import Domain
from schn_ray.tuning.study import Search

_CURVE = pa.list_(pa.struct({"iteration": pa.int64(), "validation_map": pa.float64()}))


def trial_table(search: Search) -> str:
    """Return all trials as CSV: number, state, figures, settings, cost and reason of a failure.

    Args:
        search: the search.
    """
    parameters, names = list(search.space.parameters), list(search.space.measured)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["trial", "state", *names, *parameters, "iterations", "seconds", "reason"])
    for row in search.rows():
        figures = [row.figures.get(name, "") for name in names]
        values = [json.dumps(row.values[k]) if k in row.values else "" for k in parameters]
        cost = [row.iterations, row.seconds, row.reason]
        lines.writerow([row.number, row.state, *figures, *values, *cost])
    return text.getvalue()


def trial_parquet(search: Search) -> bytes:
    """Return all trials as Parquet: what the CSV has, with types, times and each trial's curve.

    A setting's column has the type of its values, and null where a trial does not have the setting;
    settings of mixed types and lists are JSON.

    Args:
        search: the search.
    """
    rows, parameters = search.rows(), search.space.parameters
    columns: dict[str, Any] = {
        "trial": pa.array([row.number for row in rows], pa.int64()),
        "state": pa.array([row.state for row in rows], pa.string()),
    }
    for name in search.space.measured:
        columns[name] = pa.array([row.figures.get(name) for row in rows], pa.float64())
    for key, domain in parameters.items():
        columns[key] = _column(domain, [row.values.get(key) for row in rows])
    columns |= {
        "iterations": pa.array([row.iterations for row in rows], pa.int64()),
        "seconds": pa.array([row.seconds for row in rows], pa.float64()),
        "reason": pa.array([row.reason for row in rows], pa.string()),
        "started": pa.array([row.started for row in rows], pa.timestamp("us")),
        "ended": pa.array([row.ended for row in rows], pa.timestamp("us")),
        "curve": pa.array([_curve(row.curve) for row in rows], _CURVE),
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _curve(curve: dict[int, float]) -> list[dict[str, float]]:
    return [{"iteration": at, "validation_map": score} for at, score in sorted(curve.items())]


def _column(domain: Domain, values: list[Any]) -> pa.Array:
    types = {type(value) for value in domain.choices or domain.ends}
    for allowed, arrow in (
        ({bool}, pa.bool_()),
        ({int}, pa.int64()),
        ({int, float}, pa.float64()),
        ({str}, pa.string()),
    ):
        if types <= allowed:
            return pa.array(values, arrow)
    return pa.array([None if v is None else json.dumps(v) for v in values], pa.string())
