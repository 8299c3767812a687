"""Images of one gallery that have a near-duplicate in another: leaks from training to test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.duplicates.groups import index_of, refuse_bad_request, row_chunks
from schn_ray.retrieval.duplicates.nearest import nearest_within


@dataclass(frozen=True)
class LeakCounts:
    """How many images have a near-duplicate in the other gallery.

    Attributes:
        rows: images of the gallery.
        against: images of the other gallery.
        matched: images of the gallery with a near-duplicate in the other.
        equal: of these, those whose code is equal to one of the other's.
    """

    rows: int
    against: int
    matched: int
    equal: int

    def __str__(self) -> str:
        return (
            f"{self.matched:,} of {self.rows:,} images have a near-duplicate among the "
            f"{self.against:,} of the other gallery, {self.equal:,} of them one of the same code"
        )


def find_leaks(path: Path | str, against: Path | str, radius: int, out: Path) -> LeakCounts:
    """Write the images with a near-duplicate in another gallery, each with the nearest one.

    The Parquet file has the columns ``id``, ``uri``, ``distance``, ``against_id`` and
    ``against_uri``, in the order of the ids. Of equally near ones, the first id is named.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        against: another one, of the same model.
        radius: bits in which near-duplicates may differ.
        out: file to write; it appears complete or not at all.

    Raises:
        SchnRayError: neither codes nor an index, other models, ``out`` is a directory, or a
            negative radius.

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
        other_codes, postings = other.distinct()
        codes, _ = index.distinct()
        nearest, distances = nearest_within(
            codes, other_codes, postings.first_rows(), index.bits, radius
        )
        numbers = index.numbers()
        rows = np.flatnonzero(nearest[numbers] >= 0)
        columns = {"id": pa.string(), "uri": pa.string(), "distance": pa.int32()}
        columns |= {"against_id": pa.string(), "against_uri": pa.string()}
        described = {"radius": str(radius), "codes": index.manifest.fingerprint}
        described |= {"against": other.manifest.fingerprint}
        schema, path = pa.schema(columns, metadata=described), folder / out.name
        with writing(path), pq.ParquetWriter(path, schema) as writer:
            for chunk in row_chunks(len(rows)):
                at = rows[chunk]
                number = numbers[at]
                names = index.ids(at), index.uris(at)
                matched = nearest[number]
                values = [*names, distances[number], other.ids(matched), other.uris(matched)]
                arrays = [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))
        with writing(out):
            path.rename(out)
        equal = int((distances[numbers] == 0).sum())
        return LeakCounts(len(index), len(other), len(rows), equal)
