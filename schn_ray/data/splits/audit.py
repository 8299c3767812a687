"""The split audit: what would make a figure wrong, found before there is one, with its rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.data.shards.equal_rows import FirstRows, first_rows, first_with_id
from schn_ray.data.splits.protocols import JUNK, Protocol, Rows, Split


@dataclass(frozen=True)
class Finding:
    """Something that makes a figure from a split wrong, or at least worth knowing.

    Attributes:
        what: in words, after a count.
        ids: of the rows, in the order of the store.
        spoils: whether figures would be wrong.
        others: of each row, the id of the row that it clashes with; empty where there is none.
    """

    what: str
    ids: tuple[str, ...]
    spoils: bool = True
    others: tuple[str, ...] = ()

    def listed(self, most: int | None = None) -> list[str]:
        """Name the rows, a line each, at most so many and how many more."""
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
    """What could make a figure from this split wrong.

    Attributes:
        findings: with the rows that have it; nothing of what is not there.
        counts: how the split differs from its protocol's counts, a line each.
        rows: role -> rows.
    """

    findings: tuple[Finding, ...]
    counts: tuple[str, ...]
    rows: dict[str, int]

    def summary(self) -> list[str]:
        """Say what is wrong, a line each; nothing where all is well."""
        return [*map(str, self.findings), *self.counts]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``audit.json``."""
        values = asdict(self)
        return {"found": values.pop("findings")} | values

    def spoiling(self) -> list[str]:
        """Say what makes figures wrong, with the first rows of each."""
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
    """Look for what training or the gallery has seen of the queries, by id and by content.

    Also for rows without a label, ids and images that a role has twice, and other counts than the
    protocol's. An image that is twice in the gallery or in training spoils nothing, and is said.

    Args:
        split: role -> rows.
        ids: [n] of every row.
        image_of: [n] the first row with the same image; see ``first_with_hash``.
        unlabelled: [n] whether a row has no label.
        protocol: that the split should follow, also in whether a gallery may have rows without a
            label; None to leave counts alone.
    """
    query, gallery = split["query"], split["gallery"]
    train = np.concatenate([split["train"], split["validation"]])
    look = _Look(ids, first_with_id(ids), image_of, unlabelled)
    found = []
    for rows, where in ((gallery, "the gallery"), (train, "training")):
        found += [look.same_id(query, rows, f"queries are in {where}")]
        found += [look.copies(query, rows, f"queries have an identical image in {where}")]
    distractors = protocol is not None and protocol.unlabelled
    ranked = {role: rows for role, rows in split.items() if role != JUNK}
    for role, rows in ranked.items():
        wanted = distractors and role == "gallery"
        found.append(look.unlabelled(rows, f"{role} rows have no label", not wanted))
        found.append(look.id_twice(rows, f"{role} rows repeat an id"))
        found.append(look.image_twice(rows, f"{role} rows repeat an image", role == "query"))
    return Audit(
        findings=tuple(finding for finding in found if finding.ids),
        counts=_other_counts(protocol, len(query), len(train), len(gallery)),
        rows={role: len(rows) for role, rows in ranked.items()},
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """Finds rows of a store, and names them."""

    ids: pa.ChunkedArray
    id_of: FirstRows
    image_of: FirstRows
    empty: NDArray[np.bool_]

    def same_id(self, rows: Rows, among: Rows, what: str) -> Finding:
        return Finding(what, self._named(rows[self._shared(rows, among)]))

    def copies(self, rows: Rows, among: Rows, what: str) -> Finding:
        same_bytes = np.isin(self.image_of[rows], self.image_of[among])
        copied = rows[same_bytes & ~self._shared(rows, among)]
        originals = among[np.isin(self.image_of[among], self.image_of[copied])]
        held = {self.image_of[row]: row for row in originals[::-1].tolist()}
        others = [held[self.image_of[row]] for row in copied.tolist()]
        return Finding(what, self._named(copied), others=self._named(np.array(others, np.int64)))

    def unlabelled(self, rows: Rows, what: str, spoils: bool) -> Finding:
        return Finding(what, self._named(rows[self.empty[rows]]), spoils)

    def id_twice(self, rows: Rows, what: str) -> Finding:
        again, _ = _repeats(self.id_of[rows])
        return Finding(what, self._named(rows[again]))

    def image_twice(self, rows: Rows, what: str, spoils: bool) -> Finding:
        again, first = _repeats(self.image_of[rows])
        return Finding(what, self._named(rows[again]), spoils, self._named(rows[first]))

    def _shared(self, rows: Rows, among: Rows) -> NDArray[np.bool_]:
        return np.isin(self.id_of[rows], self.id_of[among])

    def _named(self, rows: Rows) -> tuple[str, ...]:
        # most findings have no rows, and Arrow copies the whole column first
        return tuple(self.ids.take(pa.array(rows)).to_pylist()) if len(rows) else ()


def _repeats(values: FirstRows) -> tuple[Rows, Rows]:
    """Return the places of values that stood there before, and where they first did: [m] each."""
    first = first_rows(values)
    again = np.flatnonzero(first != np.arange(len(values)))
    return again, first[again]


def _other_counts(protocol: Protocol | None, *got: int) -> tuple[str, ...]:
    if protocol is None or protocol.counts is None:
        return ()
    names = ("query", "training", "gallery")
    return tuple(
        f"{had:,} {name} rows, the protocol has {wanted:,}"
        for name, had, wanted in zip(names, got, protocol.counts, strict=True)
        if had != wanted
    )
