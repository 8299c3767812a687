"""The split audit: what would make a figure wrong, found before there is one, with its rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.protocols import JUNK, Protocol, Rows, Split

_COMPARED = 1 << 16  # neighbouring hashes at once


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
        found: with the rows that have it; nothing of what is not there.
        counts: how the split differs from its protocol's counts, a line each.
        rows: role -> rows.
    """

    found: tuple[Finding, ...]
    counts: tuple[str, ...]
    rows: dict[str, int]

    def findings(self) -> list[str]:
        """Say what is wrong, a line each; nothing where all is well."""
        return [*map(str, self.found), *self.counts]

    def spoiling(self) -> list[str]:
        """Say what makes figures wrong, with the first rows of each."""
        lines = list(self.counts)
        for finding in self.found:
            if finding.spoils:
                lines += [f"{finding}:", *(f"  {line}" for line in finding.listed(10))]
        return lines


def audit(
    split: Split,
    ids: pa.Array,
    images: NDArray[np.int64],
    labels: csr_array[Any],
    protocol: Protocol | None = None,
) -> Audit:
    """Look for what training or the gallery has seen of the queries, by id and by content.

    Also for rows without a label, ids and images that a role has twice, and other counts than the
    protocol's. An image that is twice in the gallery or in training spoils nothing, and is said.

    Args:
        split: role -> rows.
        ids: [n] of every row.
        images: [n] of every row, equal for equal images; see ``image_numbers``.
        labels: [n, C].
        protocol: that the split should follow, also in whether a gallery may have rows without a
            label; None to leave counts alone.
    """
    query, gallery = split["query"], split["gallery"]
    train = np.concatenate([split["train"], split["validation"]])
    look = _Look(ids, images, np.diff(labels.indptr) == 0)
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
        found=tuple(finding for finding in found if finding.ids),
        counts=_other_counts(protocol, len(query), len(train), len(gallery)),
        rows={role: len(rows) for role, rows in ranked.items()},
    )


def image_numbers(sha256: NDArray[np.void]) -> NDArray[np.int64]:
    """Return a number for each image [n], equal where all 32 bytes of the hashes are.

    These are the first 8 bytes, a quarter of the memory, as long as no two hashes share only those.
    """
    numbers = sha256.view("<i8").reshape(-1, 4)[:, 0].copy()
    order = np.argsort(numbers)
    for start in range(0, len(order), _COMPARED):
        rows = order[start : start + _COMPARED + 1]
        same = numbers[rows[1:]] == numbers[rows[:-1]]
        if (sha256[rows[1:]] != sha256[rows[:-1]])[same].any():
            return np.unique(sha256, return_inverse=True)[1]
    return numbers


@dataclass(frozen=True, eq=False)
class _Look:
    """Finds rows of a store, and names them."""

    ids: pa.Array
    images: NDArray[np.int64]
    empty: NDArray[np.bool_]

    def same_id(self, rows: Rows, among: Rows, what: str) -> Finding:
        return Finding(what, self._named(rows[self._shared(rows, among)]))

    def copies(self, rows: Rows, among: Rows, what: str) -> Finding:
        same_bytes = np.isin(self.images[rows], self.images[among])
        copied = rows[same_bytes & ~self._shared(rows, among)]
        originals = among[np.isin(self.images[among], self.images[copied])]
        held = {self.images[row]: row for row in originals[::-1].tolist()}
        others = [held[self.images[row]] for row in copied.tolist()]
        return Finding(what, self._named(copied), others=self._named(np.array(others, np.int64)))

    def unlabelled(self, rows: Rows, what: str, spoils: bool) -> Finding:
        return Finding(what, self._named(rows[self.empty[rows]]), spoils)

    def id_twice(self, rows: Rows, what: str) -> Finding:
        codes = self.ids.take(pa.array(rows)).dictionary_encode().indices.to_numpy()
        return Finding(what, self._named(rows[_repeated(codes)]))

    def image_twice(self, rows: Rows, what: str, spoils: bool) -> Finding:
        _, first, number = np.unique(self.images[rows], return_index=True, return_inverse=True)
        again = _repeated(number)
        others = self._named(rows[first[number[again]]])
        return Finding(what, self._named(rows[again]), spoils, others)

    def _shared(self, rows: Rows, among: Rows) -> NDArray[np.bool_]:
        some, others = (self.ids.take(pa.array(part)) for part in (rows, among))
        return np.asarray(pc.is_in(some, value_set=others).to_numpy(zero_copy_only=False), bool)

    def _named(self, rows: Rows) -> tuple[str, ...]:
        return tuple(self.ids.take(pa.array(rows)).to_pylist())


def _repeated(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark each value that stood there before [n]."""
    again = np.ones(len(values), bool)
    again[np.unique(values, return_index=True)[1]] = False
    return again


def _other_counts(protocol: Protocol | None, *got: int) -> tuple[str, ...]:
    if protocol is None or protocol.counts is None:
        return ()
    names = ("query", "training", "gallery")
    return tuple(
        f"{had:,} {name} rows, the protocol has {wanted:,}"
        for name, had, wanted in zip(names, got, protocol.counts, strict=True)
        if had != wanted
    )
