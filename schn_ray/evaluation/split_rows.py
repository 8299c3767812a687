"""The rows of a store's split that are measured: their audit, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.splits.audit import Audit, Finding, audit
from schn_ray.data.splits.protocols import PROTOCOLS
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.figures import AuditSummary


def audited_split(store: Store, config: EvaluateConfig, more: Sequence[Finding] = ()) -> Audit:
    """Audit the split of a store.

    Args:
        store: with queries and a gallery.
        config: whether a split that would spoil the figures is refused.
        more: further findings, of what is measured.

    Raises:
        SchnRayError: no query, no gallery row, or a split that would spoil the figures.
    """
    for role in ("query", "gallery"):
        if not len(store.rows(role)):
            raise SchnRayError(f"the store's split has no {role} rows: nothing to measure")
    protocol = PROTOCOLS.get(store.protocol)
    if protocol is not None and store.manifest.config["keep_unlabelled"]:
        protocol = replace(protocol, unlabelled=True)
    ids, unlabelled = pa.chunked_array([store.ids]), np.diff(store.labels.indptr) == 0
    audited = audit(store.split, ids, store.first_with_image(), unlabelled, protocol)
    audited = replace(audited, findings=(*audited.findings, *more))
    if audited.spoiling() and config.audit == "refuse":
        raise SchnRayError(
            "this split would spoil the figures:\n  "
            + "\n  ".join(audited.spoiling())
            + "\nPrepare the store again with queries that are neither in training nor in the "
            "gallery, or measure all the same with --set audit=report, which lists every row in "
            "audit.json"
        )
    return audited


def audit_summary(audited: Audit) -> AuditSummary:
    """Return what the figures say of an audit.

    Args:
        audited: of ``audited_split``.
    """
    return AuditSummary(
        findings=tuple(audited.summary()), spoiling=tuple(audited.spoiling()), rows=audited.rows
    )


def rows_sha256(store: Store, rows: NDArray[np.int64]) -> str:
    """Hash ids and contents of rows: equal only for the same images under the same names.

    Args:
        store: that has them.
        rows: int64 [m].
    """
    digest = hashlib.sha256()
    for id in store.ids.take(pa.array(rows)).to_pylist():
        digest.update(f"{id}\n".encode("utf-8", "surrogatepass"))
    digest.update(store.sha256(rows).tobytes())
    return digest.hexdigest()
