"""Images of one gallery that have a near-duplicate in another: leaks from training to test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.duplicates.evidence import (
    DIFFERENT,
    NOT_VERIFIED,
    SAME_BYTES,
    Evidence,
    Verification,
    VerifyBy,
    gather_evidence,
)
from schn_ray.retrieval.duplicates.groups import (
    index_of,
    refuse_bad_request,
    row_chunks,
    verified_columns,
)
from schn_ray.retrieval.duplicates.nearest import nearest_within
from schn_ray.retrieval.duplicates.verify import row_pairs
from schn_ray.retrieval.index.index import Index

_NONE = np.iinfo(np.int64).max
_BYTES, _DISTANCE = 32, 33  # where these begin in a sort key; below is the row


@dataclass(frozen=True)
class LeakCounts:
    """How many images have a near-duplicate in the other gallery.

    Attributes:
        rows: images of the gallery.
        against: images of the other gallery.
        matched: images of the gallery with a near-duplicate in the other.
        equal: of these, those whose code is equal to one of the other's.
        verify: how they were verified, see ``evidence.Verification``.
        candidates: images of the gallery with a near code in the other.
        unverified: images of both with a near code in the other that could not be read, or have
            no features.
    """

    rows: int
    against: int
    matched: int
    equal: int
    verify: VerifyBy = "none"
    candidates: int = 0
    unverified: int = 0

    def __str__(self) -> str:
        what = "an image of near code" if self.verify == "none" else "a near-duplicate"
        text = (
            f"{self.matched:,} of {self.rows:,} images have {what} among the "
            f"{self.against:,} of the other gallery, {self.equal:,} of them one of the same code"
        )
        if self.verify == "none":
            return text + "; not verified by the images: they may just be of one class"
        text += f"; verified among {self.candidates:,} images with near codes"
        if self.unverified:
            text += f"; {self.unverified:,} images of both could not be verified"
        return text


def find_leaks(
    path: Path | str,
    against: Path | str,
    radius: int,
    out: Path,
    verification: Verification = NOT_VERIFIED,
) -> LeakCounts:
    """Write the images with a near-duplicate in another gallery, each with the nearest one.

    The Parquet file has the columns ``id``, ``uri``, ``distance``, ``against_id`` and
    ``against_uri``, in the order of the ids. Of equally near ones, the first id is named. Verified
    ones also have ``verified`` and ``difference``, see ``write_groups``; of equally near ones, one
    of the same bytes is named first.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        against: another one, of the same model.
        radius: bits in which near-duplicates may differ.
        out: file to write; it appears complete or not at all.
        verification: what makes candidates copies; without, all near codes count.

    Raises:
        SchnRayError: neither codes nor an index, other models, ``out`` is a directory, a negative
            radius, or as ``gather_evidence``.

    Example:
        ``find_leaks("train-codes", "test-codes", 2, Path("leaks.parquet")).matched``
    """
    refuse_bad_request(radius, out)
    with (
        scratch_folder(out) as folder,
        index_of(path, folder / "index") as index,
        index_of(against, folder / "other") as other,
    ):
        if (index.bits, index.model) != (other.bits, other.model):
            raise SchnRayError(
                f"{against} was encoded by another model than {path}, so codes cannot be compared: "
                "encode both with one model"
            )
        rows, matched, distances = _nearest_rows(index, other, radius)
        evidence, candidates = None, len(rows)
        if verification.by != "none":
            other_rows = candidate_rows(other, index, radius)
            evidence = evidence_of_both(index, rows, other, other_rows, verification)
            pairs = _verified(index, rows, other, other_rows, radius, evidence)
            rows, matched, distances = rows[pairs.first], other_rows[pairs.second], pairs.distances
        columns = {"id": pa.string(), "uri": pa.string(), "distance": pa.int32()}
        columns |= {"against_id": pa.string(), "against_uri": pa.string()}
        described = {"radius": str(radius), "codes": index.manifest.fingerprint}
        described |= {"against": other.manifest.fingerprint, "verify": verification.by}
        if evidence is not None:
            columns |= {"verified": pa.string(), "difference": pa.float32()}
        schema, path = pa.schema(columns, metadata=described), folder / out.name
        with writing(path), pq.ParquetWriter(path, schema) as writer:
            for chunk in row_chunks(len(rows)):
                at, others = rows[chunk], matched[chunk]
                names = index.ids(at), index.uris(at)
                values = [*names, distances[chunk], other.ids(others), other.uris(others)]
                if evidence is not None:
                    positions = pairs.first[chunk], candidates + pairs.second[chunk]
                    far = np.zeros(len(at), np.bool_)
                    values += verified_columns(evidence, *positions, far)
                arrays = [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))
        with writing(out):
            path.rename(out)
        return LeakCounts(
            len(index),
            len(other),
            len(rows),
            int((distances == 0).sum()),
            verification.by,
            candidates,
            0 if evidence is None else evidence.unread,
        )


def _nearest_rows(
    index: Index, other: Index, radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return rows with a near code in another index, the nearest row there, and the distance."""
    other_codes, postings = other.distinct()
    codes, _ = index.distinct()
    nearest, distances = nearest_within(
        codes, other_codes, postings.first_rows(), index.bits, radius
    )
    numbers = index.numbers()
    rows = np.flatnonzero(nearest[numbers] >= 0)
    return rows, nearest[numbers[rows]], distances[numbers[rows]]


class VerifiedPairs(NamedTuple):
    """Candidates with a verified copy: positions among both galleries' candidates, and bits."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distances: NDArray[np.int64]


def candidate_rows(index: Index, other: Index, radius: int) -> NDArray[np.int64]:
    """Return the rows that have a near code in another index: int64 [c], ascending.

    Args:
        index: whose rows.
        other: of the same model.
        radius: in bits.
    """
    return _nearest_rows(index, other, radius)[0]


def evidence_of_both(
    index: Index,
    rows: NDArray[np.int64],
    other: Index,
    other_rows: NDArray[np.int64],
    verification: Verification,
) -> Evidence:
    """Gather the evidence of both galleries' candidates, the own ones first.

    Args:
        index: the one gallery.
        rows: its candidates.
        other: the other gallery.
        other_rows: its candidates.
        verification: how they are compared.
    """

    def names(at: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        own, others = at[at < len(rows)], at[at >= len(rows)] - len(rows)  # ``at`` ascends
        return (
            index.ids(rows[own]) + other.ids(other_rows[others]),
            index.uris(rows[own]) + other.uris(other_rows[others]),
        )

    contents = np.concatenate([index.contents(rows), other.contents(other_rows)])
    return gather_evidence(verification, contents, names)


def _verified(
    index: Index,
    rows: NDArray[np.int64],
    other: Index,
    other_rows: NDArray[np.int64],
    radius: int,
    evidence: Evidence,
) -> VerifiedPairs:
    """Return the nearest verified copy of each candidate that has one."""
    n, best = len(rows), np.full(len(rows), _NONE)
    codes, other_codes = index.codes(rows), other.codes(other_rows)
    for first, second, distances in row_pairs(codes, other_codes, index.bits, radius):
        # a pair that is farther than a verified one need not be compared
        near = np.flatnonzero(distances <= best[first] >> _DISTANCE)
        first, second, distances = first[near], second[near], distances[near]
        ways, _ = evidence.compare(first, n + second)
        copies = ways != DIFFERENT
        other_bytes = (ways != SAME_BYTES).astype(np.int64) << _BYTES
        keys = distances << _DISTANCE | other_bytes | second
        np.minimum.at(best, first[copies], keys[copies])
    at = np.flatnonzero(best != _NONE)
    return VerifiedPairs(at, best[at] & ((1 << _BYTES) - 1), best[at] >> _DISTANCE)
