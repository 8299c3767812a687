"""The split audit: find rows that would make the figures of an evaluation wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.data.shards.equal_rows import FirstRows, first_rows, first_with_id
from schn_ray.data.splits.protocols import JUNK, UNLABELLED, Protocol, Rows, Split


@dataclass(frozen=True)
class Finding:
    """One problem of a split, with its rows.

    Attributes:
        what: the problem, as text that follows a count.
        ids: ids of the rows that have it, in the order of the store.
        spoils: whether it makes figures wrong; otherwise it is only worth knowing.
        others: of each row, the id of the row that it conflicts with; empty if there is none.
    """

    what: str
    ids: tuple[str, ...]
    spoils: bool = True
    others: tuple[str, ...] = ()

    def listed(self, most: int | None = None) -> list[str]:
        """List the rows, a line each.

        Args:
            most: list at most so many, and add a line with how many more there are.
        """
        lines = [
            f"{id} (as {other})" if other not in ("", id) else id
            for id, other in zip_longest(self.ids, self.others, fillvalue="")
        ]
        if most is not None and len(lines) > most:
            lines = [*lines[:most], f"and {len(lines) - most:,} more"]
        return lines

    def __str__(self) -> str:
        return f"{len(self.ids):,} {self.what}"


@dataclass(frozen=True)
class Audit:
    """The result of ``audit``.

    Attributes:
        findings: the problems that at least one row has.
        counts: how the split differs from its protocol's counts, a line each.
        rows: role -> number of rows.
    """

    findings: tuple[Finding, ...]
    counts: tuple[str, ...]
    rows: dict[str, int]

    def summary(self) -> list[str]:
        """List all problems, a line each; the list is empty if there are none."""
        return [*map(str, self.findings), *self.counts]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``audit.json``."""
        values = asdict(self)
        return {"found": values.pop("findings")} | values

    def spoiling(self) -> list[str]:
        """List the problems that make figures wrong, each with its first ten rows."""
        lines = list(self.counts)
        for finding in self.findings:
            if finding.spoils:
                lines += [f"{finding}:", *(f"  {line}" for line in finding.listed(10))]
        return lines


def audit(
    split: Split,
    ids: pa.ChunkedArray,
    image_of: FirstRows,
    unlabelled: NDArray[np.bool_],
    protocol: Protocol | None = None,
) -> Audit:
    """Find queries that are also in training or in the gallery, by id and by content.

    The audit also finds rows without a label, ids and images that a role has twice, and numbers of
    rows that differ from the protocol's. An image that is twice in the gallery or in training is
    reported, but does not make figures wrong, and so is a training row without a label. Missing
    labels are no finding where no row has one, or where the protocol asks for none.

    Args:
        split: role -> rows.
        ids: [n] id of every row.
        image_of: [n] first row with the same image; see ``first_with_hash``.
        unlabelled: [n] whether a row has no label.
        protocol: what the split should follow: its counts, and whether the gallery may have rows
            without a label. None: counts are not compared.
    """
    query, gallery = split["query"], split["gallery"]
    train = np.concatenate([split["train"], split["validation"]])
    rows_with = _RowsWith(ids, first_with_id(ids), image_of, unlabelled)
    findings = []
    for rows, where in ((gallery, "the gallery"), (train, "training")):
        findings += [rows_with.same_id(query, rows, f"queries are in {where}")]
        findings += [rows_with.copies(query, rows, f"queries have an identical image in {where}")]
    distractors = protocol is not None and protocol.unlabelled
    without_labels = unlabelled.all() or (protocol is not None and protocol.draw == UNLABELLED)
    ranked = {role: rows for role, rows in split.items() if role != JUNK}
    for role, rows in ranked.items():
        # semi-supervised methods learn from training rows that have none
        allowed = role == "train" or (distractors and role == "gallery")
        if not without_labels:
            findings.append(rows_with.no_label(rows, f"{role} rows have no label", not allowed))
        findings.append(rows_with.id_twice(rows, f"{role} rows repeat an id"))
        findings.append(
            rows_with.image_twice(rows, f"{role} rows repeat an image", role == "query")
        )
    return Audit(
        findings=tuple(finding for finding in findings if finding.ids),
        counts=_other_counts(protocol, len(query), len(train), len(gallery)),
        rows={role: len(rows) for role, rows in ranked.items()},
    )


def seen_in_training(queries: pa.Table, trained: pa.Table) -> list[Finding]:
    """Find queries that a model was trained on, by id and by content.

    Args:
        queries: columns ``id`` and ``sha256``.
        trained: the same of the rows that the model was trained on or chosen by.

    Returns:
        The problems that at least one query has.
    """
    ids = queries["id"].to_pylist()
    findings = []
    for column, what in (
        ("id", "queries are rows that the run was trained on"),
        ("sha256", "queries have an image that the run was trained on"),
    ):
        positions = pc.index_in(queries[column], trained[column].combine_chunks()).to_pylist()
        rows = [row for row, position in enumerate(positions) if position is not None]
        at = pa.array([positions[row] for row in rows], pa.int64())
        others = trained["id"].take(at).to_pylist()
        findings.append(Finding(what, tuple(ids[row] for row in rows), True, tuple(others)))
    return [finding for finding in findings if finding.ids]


@dataclass(frozen=True, eq=False)
class _RowsWith:
    """Finds rows of a store that have a problem, and their ids."""

    ids: pa.ChunkedArray
    id_of: FirstRows
    image_of: FirstRows
    unlabelled: NDArray[np.bool_]

    def same_id(self, rows: Rows, among: Rows, what: str) -> Finding:
        return Finding(what, self._ids_of(rows[self._shared(rows, among)]))

    def copies(self, rows: Rows, among: Rows, what: str) -> Finding:
        same_bytes = np.isin(self.image_of[rows], self.image_of[among])
        copied = rows[same_bytes & ~self._shared(rows, among)]
        originals = among[np.isin(self.image_of[among], self.image_of[copied])]
        row_with = {self.image_of[row]: row for row in originals[::-1].tolist()}
        others = [row_with[self.image_of[row]] for row in copied.tolist()]
        return Finding(what, self._ids_of(copied), others=self._ids_of(np.array(others, np.int64)))

    def no_label(self, rows: Rows, what: str, spoils: bool) -> Finding:
        return Finding(what, self._ids_of(rows[self.unlabelled[rows]]), spoils)

    def id_twice(self, rows: Rows, what: str) -> Finding:
        again, _ = _repeats(self.id_of[rows])
        return Finding(what, self._ids_of(rows[again]))

    def image_twice(self, rows: Rows, what: str, spoils: bool) -> Finding:
        again, first = _repeats(self.image_of[rows])
        return Finding(what, self._ids_of(rows[again]), spoils, self._ids_of(rows[first]))

    def _shared(self, rows: Rows, among: Rows) -> NDArray[np.bool_]:
        return np.isin(self.id_of[rows], self.id_of[among])

    def _ids_of(self, rows: Rows) -> tuple[str, ...]:
        # most findings have no rows, and Arrow's take copies the whole column first
        return tuple(self.ids.take(pa.array(rows)).to_pylist()) if len(rows) else ()


def _repeats(values: FirstRows) -> tuple[Rows, Rows]:
    """Return positions of values that occurred before, and of their first occurrence: [m] each."""
    first = first_rows(values)
    again = np.flatnonzero(first != np.arange(len(values)))
    return again, first[again]


def _other_counts(protocol: Protocol | None, *got: int) -> tuple[str, ...]:
    if protocol is None or protocol.counts is None:
        return ()
    names = ("query", "training", "gallery")
    return tuple(
        f"{count:,} {name} rows, the protocol has {expected:,}"
        for name, count, expected in zip(names, got, protocol.counts, strict=True)
        if count != expected
    )
