"""How many copies would be recovered: copies of random gallery images are planted, and looked for.

Each chosen image is resized, recompressed, cropped and mirrored; the model encodes the copies, and
they are compared with the gallery as ``find_leaks`` compares two. Recall counts, for each kind, the
copies that are verified against their own original. Precision counts verified pairs: one is right
if its gallery image is the original, or is itself verified as a copy of the original.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import new_directory, scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import BadImage, decode
from schn_ray.data.sources.fetch import fetch
from schn_ray.retrieval.code_files import DATA, PARTS, code_batch
from schn_ray.retrieval.duplicates.evidence import DIFFERENT, WAYS, Evidence, Verification
from schn_ray.retrieval.duplicates.groups import index_of, refuse_bad_request
from schn_ray.retrieval.duplicates.leaks import candidate_rows, evidence_of_both
from schn_ray.retrieval.duplicates.verify import row_pairs
from schn_ray.retrieval.index.build import write_bare_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.queries import content_digest, same_model

if TYPE_CHECKING:
    from schn_ray.models.base_hasher import BaseHasher

_MAX_PIXELS = 100_000_000
_QUALITY = 95  # of JPEG, where recompression is not the point
_ENCODED_AT_ONCE = 256
_SEED = 20


def resized(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Shrink or enlarge an image, to 0.5 to 1.5 times its sides.

    Args:
        image: upright RGB.
        rng: draws the factor.
    """
    factor = rng.uniform(0.5, 1.5)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return _jpeg(image.resize((width, height), Image.Resampling.BICUBIC), _QUALITY)


def recompressed(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Save an image as a JPEG of quality 30 to 80.

    Args:
        image: upright RGB.
        rng: draws the quality.
    """
    return _jpeg(image, int(rng.integers(30, 81)))


def cropped(image: Image.Image, rng: np.random.Generator) -> bytes:
    """Cut a part out of an image, of 85 to 98 % of each side.

    Args:
        image: upright RGB.
        rng: draws how much, and where.
    """
    share = rng.uniform(0.85, 0.98)
    width, height = (max(1, round(side * share)) for side in image.size)
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return _jpeg(image.crop((left, top, left + width, top + height)), _QUALITY)


def mirrored(image: Image.Image, _: np.random.Generator) -> bytes:
    """Mirror an image left to right.

    Args:
        image: upright RGB.
    """
    return _jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), _QUALITY)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], bytes]] = {
    "resized": resized,
    "recompressed": recompressed,
    "cropped": cropped,
    "mirrored": mirrored,
}


@dataclass(frozen=True)
class KindCounts:
    """What became of the planted copies of a kind.

    Attributes:
        kind: of the change.
        planted: copies.
        near: copies whose code is within the radius of the original's.
        recovered: of these, those that were verified.
    """

    kind: str
    planted: int
    near: int
    recovered: int


@dataclass(frozen=True)
class PlantedCounts:
    """Recall by kind of change, and precision.

    Attributes:
        rows: images of the gallery.
        originals: images that copies were made of.
        kinds: counts of each kind.
        pairs: verified pairs of a copy and a gallery image.
        right: those with the original, or with a copy of it that the gallery has anyway.
        precision: share of the pairs that are right; None without pairs.
        verify: how pairs were verified.
    """

    rows: int
    originals: int
    kinds: tuple[KindCounts, ...]
    pairs: int
    right: int
    precision: float | None
    verify: str

    def __str__(self) -> str:
        lines = [f"copies of {self.originals:,} of {self.rows:,} images, verify {self.verify}"]
        lines += [
            f"  {kind.kind:13} {kind.recovered / kind.planted:6.1%} recovered "
            f"({kind.near / kind.planted:.1%} have a near code)"
            for kind in self.kinds
        ]
        if self.precision is not None:
            lines.append(f"  {'precision':13} {self.precision:6.2%} of {self.pairs:,} pairs")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Copies:
    """Planted copies: for each, its kind as a position in KINDS, and the row of its original."""

    index: Index
    kinds: NDArray[np.int64]
    originals: NDArray[np.int64]


def plant_copies(
    path: Path | str,
    model: Path | str,
    count: int,
    radius: int,
    out: Path,
    verification: Verification,
) -> PlantedCounts:
    """Plant copies of random images in a gallery, and look for them.

    The Parquet file has a row for each verified pair, and one for each copy without: ``kind``,
    ``id`` and ``uri`` of the original, ``match_id``, ``match_uri``, ``distance`` in bits,
    ``verified``, ``difference``, ``right``. The gallery itself is not changed.

    Args:
        path: a ``codes`` directory or an index, a path or a URI, whose images can be read.
        model: that encoded it.
        count: images to copy, each once in every way.
        radius: bits in which codes of copies may differ.
        out: file to write; it appears complete or not at all.
        verification: what makes candidates copies.

    Raises:
        SchnRayError: another model, one that takes vectors, no image that can be read, or as
            ``find_leaks``.

    Example:
        ``plant_copies("codes", "run", 200, 2, Path("p.parquet"), Verification("perceptual"))``
    """
    refuse_bad_request(radius, out)
    if verification.by == "features":
        raise SchnRayError("planted copies have no stored features: leave --plant or features out")
    from schn_ray.models.load import load

    hasher = load(model)
    with scratch_folder(out) as folder, index_of(path, folder / "index") as index:
        hasher = same_model(index, hasher)
        if hasher.input != "images":
            raise SchnRayError("the model takes vectors; copies are planted of images")
        copies = _planted(index, hasher, count, folder)
        table, counts = _looked_for(index, copies, radius, verification)
        file = folder / out.name
        with writing(file):
            pq.write_table(table, file)
            file.rename(out)
        return counts


def copies_of(data: bytes, row: int) -> list[bytes]:
    """Make the copies of an image, one of each kind.

    Args:
        data: the encoded image.
        row: of the image; it seeds what is drawn.

    Raises:
        BadImage: it cannot be decoded.
    """
    image, rng = decode(data, _MAX_PIXELS), np.random.default_rng([_SEED, row])
    return [change(image, rng) for change in KINDS.values()]


def _planted(index: Index, hasher: BaseHasher, count: int, folder: Path) -> _Copies:
    """Write copies of random images, their codes, and an index of these."""
    rows, files, images = list[int](), list[Path](), folder / "copies"
    images.mkdir()
    for row in np.random.default_rng(_SEED).permutation(len(index)).tolist():
        if len(rows) == count:
            break
        try:
            made = copies_of(fetch(index.uris(np.array([row]))[0]), row)
        except (SchnRayError, BadImage, OSError):
            continue  # another is drawn
        rows.append(row)
        for kind, data in enumerate(made):
            files.append(images / f"{len(files):08}-{kind}.jpg")
            files[-1].write_bytes(data)
    if not rows:
        raise SchnRayError("no image of the gallery can be read, so no copy can be planted")
    _write_codes(files, hasher, folder / "codes")
    write_bare_index(folder / "codes", folder / "planted")
    kinds = np.tile(np.arange(len(KINDS)), len(rows))  # files are in the order of their names
    return _Copies(open_index(folder / "planted"), kinds, np.repeat(rows, len(KINDS)))


def _write_codes(files: Sequence[Path], hasher: BaseHasher, out: Path) -> None:
    made_from = {"model": hasher.fingerprint, "source": "planted"}
    with new_directory(out, "codes", {"bits": hasher.bits}, made_from) as draft:
        (draft.path / DATA).mkdir()
        for start in range(0, len(files), _ENCODED_AT_ONCE):
            part = files[start : start + _ENCODED_AT_ONCE]
            relaxed = hasher.relaxed_of(part)
            codes = np.packbits(relaxed >= 0, axis=1, bitorder="little")
            digests = [np.resize(content_digest(file.read_bytes()), 32) for file in part]
            batch = code_batch(
                [file.name for file in part],
                [str(file) for file in part],
                codes,
                np.stack(digests),
                np.zeros((len(part), 0), np.float16),
            )
            name = PARTS.replace("*", f"{start // _ENCODED_AT_ONCE:05}")
            pq.write_table(pa.Table.from_batches([batch]), draft.path / name)


def _looked_for(
    index: Index, copies: _Copies, radius: int, verification: Verification
) -> tuple[pa.Table, PlantedCounts]:
    rows = candidate_rows(copies.index, index, radius)
    other_rows = np.union1d(candidate_rows(index, copies.index, radius), copies.originals)
    evidence = None
    if verification.by != "none":
        evidence = evidence_of_both(copies.index, rows, index, other_rows, verification)
    codes, other_codes = copies.index.codes(rows), index.codes(other_rows)
    near = np.zeros(len(copies.kinds), np.bool_)
    pairs = list[tuple[NDArray[np.int64], ...]]()
    details = list[tuple[NDArray[np.uint8], NDArray[np.float32]]]()
    for first, second, distances in row_pairs(codes, other_codes, index.bits, radius):
        near[rows[first][copies.originals[rows[first]] == other_rows[second]]] = True
        ways = np.ones(len(first), np.uint8)
        difference = np.full(len(first), np.nan, np.float32)
        if evidence is not None:
            ways, difference = evidence.compare(first, len(rows) + second)
        copied = ways != DIFFERENT
        pairs.append((first[copied], second[copied], distances[copied]))
        details.append((ways[copied], difference[copied]))
    none = np.zeros(0, np.int64)
    first, second, distances = (np.concatenate([none, *part]) for part in zip(*pairs, strict=True))
    ways, difference = (np.concatenate(part) for part in zip(*details, strict=True))
    copy, match = rows[first], other_rows[second]
    own = copies.originals[copy] == match
    right = own | _of_original(evidence, copies.originals[copy], match, rows, other_rows)
    recovered = np.zeros(len(copies.kinds), np.bool_)
    recovered[copy[own]] = True
    counts = PlantedCounts(
        len(index),
        len(copies.kinds) // len(KINDS),
        tuple(
            KindCounts(
                name,
                int((copies.kinds == kind).sum()),
                int(near[copies.kinds == kind].sum()),
                int(recovered[copies.kinds == kind].sum()),
            )
            for kind, name in enumerate(KINDS)
        ),
        len(copy),
        int(right.sum()),
        float(right.mean()) if len(right) else None,
        verification.by,
    )
    lost = np.setdiff1d(np.arange(len(copies.kinds)), copy)
    of_copy = np.concatenate([copy, lost])
    originals, missing = copies.originals[of_copy], pa.nulls(len(lost))
    columns = {
        "kind": pa.array(np.array(list(KINDS))[copies.kinds[of_copy]]),
        "id": pa.array(index.ids(originals), pa.string()),
        "uri": pa.array(index.uris(originals), pa.string()),
        "row": pa.array(originals),
    }
    matched = {
        "match_id": pa.array(index.ids(match), pa.string()),
        "match_uri": pa.array(index.uris(match), pa.string()),
        "distance": pa.array(distances),
        "verified": pa.array(np.array(WAYS)[ways], pa.string()),
        "difference": pa.array(difference, mask=np.isnan(difference)),
        "right": pa.array(right),
    }
    for name, values in matched.items():
        columns[name] = pa.concat_arrays([values, missing.cast(values.type)])
    return pa.table(columns), counts


def _of_original(
    evidence: Evidence | None,
    originals: NDArray[np.int64],
    match: NDArray[np.int64],
    rows: NDArray[np.int64],
    other_rows: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Tell which matches are themselves verified as copies of the original."""
    if evidence is None:
        return np.zeros(len(match), np.bool_)
    positions = (len(rows) + np.searchsorted(other_rows, of) for of in (originals, match))
    ways, _ = evidence.compare(*positions)
    return ways != DIFFERENT
