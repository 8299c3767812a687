"""Codes or embeddings of another program, joined to the rows of a store by their ids.

The store has the labels and the split. What the file lacks of the queries and the gallery spoils
the figures; rows of other roles, and rows that the store does not have, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError, few
from schn_ray.data.splits.audit import Finding
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.foreign_files import ForeignFiles, ForeignRows, read_foreign_rows
from schn_ray.evaluation.label_files import Labels

_SHOWN = 3  # ids in a message


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """Rows of another program's file that are queries or gallery of a store.

    Attributes:
        queries: in the order of the store, with its labels.
        gallery: likewise.
        fingerprint: of what the file holds.
        findings: rows of the split without a code, and codes without a row of the store.
    """

    queries: ForeignRows
    gallery: ForeignRows
    fingerprint: str
    findings: tuple[Finding, ...]


def stored_foreign(files: ForeignFiles, store: Store, config: EvaluateConfig) -> JoinedRows:
    """Join the rows of a file to those of a store.

    Args:
        files: codes or embeddings, with ids.
        store: has the labels and the split.
        config: whether a file that lacks rows of the split is refused.

    Raises:
        SchnRayError: labels, queries or a split beside the store; no ids, an id twice, or none of
            the store's; or, unless ``audit`` is ``report``, rows of the split without a code.
    """
    options = {
        "--labels": files.labels,
        "--queries": files.queries,
        "--query-labels": files.query_labels,
        "--split": files.split,
    }
    if given := [name for name, value in options.items() if value is not None]:
        raise SchnRayError(f"the store has labels and split: leave {', '.join(given)} out")
    rows, fingerprint = read_foreign_rows(files)
    positions, extra = _positions(rows, store)
    findings = []
    if len(extra):
        findings.append(Finding("rows of the file are not in the store", extra, spoils=False))
    for role in ("query", "gallery"):
        own = store.rows(role)
        missing = own[positions[own] < 0]
        if len(missing):
            ids = tuple(store.ids.take(pa.array(missing)).to_pylist())
            findings.append(Finding(f"{role} rows of the store have no code", ids))
    spoiling = [finding for finding in findings if finding.spoils]
    if spoiling and config.audit == "refuse":
        raise SchnRayError(
            f"{rows.source} is not whole:\n  "
            + "\n  ".join(f"{each}, such as {_listed(each.ids)}" for each in spoiling)
            + "\nGive codes of all, or measure the others with --set audit=report, which says so "
            "beside the figures"
        )
    sides = [_side(rows, store, positions, role) for role in ("query", "gallery")]
    return JoinedRows(sides[0], sides[1], fingerprint, tuple(findings))


def _positions(rows: ForeignRows, store: Store) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return each store row's position in the file, -1 for none; and ids that the store lacks."""
    if rows.ids is None:
        raise SchnRayError(
            f"{rows.source} has no ids, by which rows are those of the store: save an .npz or "
            "Parquet file with codes (or embeddings) and id"
        )
    ids = pa.array(rows.ids, pa.string())
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if twice:
        raise SchnRayError(f"{rows.source} has ids more than once: {_listed(twice)}")
    own = store.rows_of(ids)
    in_store = own >= 0
    if not in_store.any():
        raise SchnRayError(
            f"{rows.source} has none of the ids of {store.location}: they look like "
            f"{rows.ids[0]!r}, the store's like {store.ids[0].as_py()!r}"
        )
    positions = np.full(len(store), -1, np.int64)
    positions[own[in_store]] = np.flatnonzero(in_store)
    return positions, tuple(ids.filter(pa.array(~in_store)).to_pylist())


def _side(rows: ForeignRows, store: Store, positions: NDArray[np.int64], role: str) -> ForeignRows:
    own = store.rows(role)
    own = own[positions[own] >= 0]
    if not len(own):
        raise SchnRayError(f"{rows.source} has no {role} row of the store: nothing to measure")
    labels = Labels(store.labels[own], store.classes) if store.classes else None
    return replace(rows[positions[own]], labels=labels, stored=own)


def _listed(ids: list[str] | tuple[str, ...]) -> str:
    return few(list(map(repr, ids)), _SHOWN)
