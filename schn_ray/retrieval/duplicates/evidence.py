"""Whether two images with near codes are copies: by their bytes, their pictures, or their features.

Codes of images of one class may be equal, so near codes only make candidates. ``Evidence`` holds
what is known of n candidates and compares pairs of them; ``gather_evidence`` collects it, and reads
each image once, those of equal bytes only once together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.progress import Progress
from schn_ray.core.storage.cache import local_copy
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.vectors import VectorColumn
from schn_ray.data.sources.stored import open_rows
from schn_ray.retrieval.duplicates.thumbnails import (
    LIMIT,
    WIDTH,
    ImageList,
    differences,
    read_images,
    whole_vectors,
)
from schn_ray.retrieval.index.scan import Bytes

VerifyBy = Literal["perceptual", "bytes", "features", "none"]
FEATURES_LIMIT = 0.05  # 1 - cosine of two features that count as copies; see benchmarks/README.md
DIFFERENT, SAME_BYTES, SAME_PICTURE, SAME_FEATURES = range(4)
WAYS = ("", "bytes", "perceptual", "features")  # their names in files
_IMAGES_AT_ONCE = 1024  # of a list that a worker reads

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Verification:
    """How candidates are verified.

    Attributes:
        by: ``perceptual``: same bytes, or pictures that look the same; ``bytes``: these only;
            ``features``: same bytes, or near features; ``none``: codes are taken for proof.
        features: for ``features``, what ``embed`` wrote; a path or a URI.
        map_shards: applies a function to lists of images, on whatever machines.

    Raises:
        SchnRayError: another way, or features that are missing or not used.
    """

    by: VerifyBy
    features: Path | str | None = None
    map_shards: MapShards = field(default=map_locally, repr=False)

    def __post_init__(self) -> None:
        if self.by not in get_args(VerifyBy):
            raise SchnRayError(f"verify is {self.by!r}; it can be {', '.join(get_args(VerifyBy))}")
        if (self.by == "features") != (self.features is not None):
            raise SchnRayError(
                "--verify features and --features DIR go together: DIR is what embed wrote"
            )


NOT_VERIFIED = Verification("none")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of n candidates.

    Attributes:
        contents: uint8 [n, 16], digests of their bytes; zeros where they are not known.
        limit: the largest difference of two copies.
        pixels: uint8 [n, 704], their thumbnails; None where pictures are not compared.
        vectors: float32 [n, d], of length 1, of their pictures or features; None without.
        usable: bool [n], which of these can be compared.
        unread: how many images could not be read, or have no features.
    """

    contents: Bytes
    limit: float = 0.0
    pixels: NDArray[np.uint8] | None = None
    vectors: NDArray[np.float32] | None = None
    usable: NDArray[np.bool_] | None = None
    unread: int = 0

    def at(self, positions: Positions) -> Evidence:
        """Return what is known of chosen candidates."""
        return replace(
            self,
            contents=self.contents[positions],
            pixels=None if self.pixels is None else self.pixels[positions],
            vectors=None if self.vectors is None else self.vectors[positions],
            usable=None if self.usable is None else self.usable[positions],
        )

    def compare(
        self, first: Positions, second: Positions
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Compare pairs of candidates.

        Args:
            first: int64 [p].
            second: int64 [p].

        Returns:
            uint8 [p], how each pair was verified, as a position in WAYS, 0 of those that are not
            copies; and float32 [p], their difference, NaN where they were not compared.
        """
        own = self.contents[first]
        same = (own == self.contents[second]).all(axis=1) & own.any(axis=1)
        ways = np.where(same, SAME_BYTES, DIFFERENT).astype(np.uint8)
        difference = np.where(same, 0, np.nan).astype(np.float32)
        if self.vectors is None or self.usable is None:
            return ways, difference
        at = np.flatnonzero(~same & self.usable[first] & self.usable[second])
        pairs = first[at], second[at]
        if self.pixels is None:
            cosines = np.einsum("pd,pd->p", self.vectors[pairs[0]], self.vectors[pairs[1]])
            difference[at] = np.maximum(1 - cosines, 0)
        else:
            difference[at] = differences(self.pixels, self.vectors, *pairs)
        copies = at[difference[at] <= self.limit]
        ways[copies] = SAME_FEATURES if self.pixels is None else SAME_PICTURE
        return ways, difference

    def representatives(self) -> Positions:
        """Return, for each candidate, the first one of the same bytes: int64 [n]."""
        first = np.arange(len(self.contents))
        known = np.flatnonzero(self.contents.any(axis=1))
        digests = np.ascontiguousarray(self.contents[known]).view("V16").ravel()
        _, at, inverse = np.unique(digests, return_index=True, return_inverse=True)
        first[known] = known[at[inverse]]
        return first


def gather_evidence(
    verification: Verification,
    contents: Bytes,
    names: Callable[[Positions], tuple[list[str], list[str]]],
) -> Evidence:
    """Read what candidates are compared by.

    Args:
        verification: how.
        contents: uint8 [n, 16], digests of their bytes; zeros where they are not known.
        names: ids and uris of candidates, by their positions.

    Raises:
        SchnRayError: no image can be read; or digests are missing, and nothing else was to be
            compared; or features are missing.
    """
    evidence = Evidence(contents)
    if verification.by == "bytes":
        if not contents.any(axis=1).all():
            raise SchnRayError(
                "these codes do not say what bytes they were made of: encode the images again, or "
                "use --verify perceptual"
            )
        return evidence
    if verification.by == "features":
        assert verification.features is not None
        return _with_features(evidence, verification.features, names)
    return _with_pictures(evidence, verification.map_shards, names)


def _with_pictures(
    evidence: Evidence,
    map_shards: MapShards,
    names: Callable[[Positions], tuple[list[str], list[str]]],
) -> Evidence:
    n, contents = len(evidence.contents), evidence.contents.copy()
    first = evidence.representatives()
    to_read = np.flatnonzero(first == np.arange(n))
    pixels, problems = np.zeros((n, WIDTH), np.uint8), dict[int, str]()
    with Progress("reading images", total=len(to_read), unit="images") as progress:
        for read in map_shards(read_images, list(_lists(to_read, names))):
            at = to_read[read.number * _IMAGES_AT_ONCE :][: len(read.pixels)]
            pixels[at] = read.pixels
            unknown = at[~contents[at].any(axis=1)]
            contents[unknown] = read.contents[np.isin(at, unknown)]
            problems |= {int(at[row]): why for row, why in read.problems.items()}
            progress.advance(len(at))
    if n and len(problems) == len(to_read):
        raise SchnRayError(
            f"none of the {n:,} images with near codes can be read: "
            f"{next(iter(problems.values()))}. Say what else shows that they are copies: --verify "
            "bytes (the digests in the codes), features, or none"
        )
    vectors, flat = whole_vectors(pixels[to_read])
    all_vectors, usable = np.zeros((n, vectors.shape[1]), np.float32), np.zeros(n, np.bool_)
    all_vectors[to_read], usable[to_read] = vectors, ~flat
    unread = int(np.isin(first, list(problems)).sum())
    known = replace(evidence, contents=contents, limit=LIMIT, unread=unread)
    return replace(known, pixels=pixels[first], vectors=all_vectors[first], usable=usable[first])


def _lists(
    positions: Positions, names: Callable[[Positions], tuple[list[str], list[str]]]
) -> Iterator[ImageList]:
    for number, start in enumerate(range(0, len(positions), _IMAGES_AT_ONCE)):
        yield ImageList(number, names(positions[start : start + _IMAGES_AT_ONCE])[1])


def _with_features(
    evidence: Evidence,
    location: Path | str,
    names: Callable[[Positions], tuple[list[str], list[str]]],
) -> Evidence:
    path = local_copy(location)
    read_manifest(path, "features")
    table = open_rows(path)
    n = len(evidence.contents)
    ids = pa.array(names(np.arange(n))[0], pa.string())
    position = pc.index_in(ids, table["id"].combine_chunks().cast(pa.string()))
    usable = pc.is_valid(position).to_numpy(zero_copy_only=False)
    if n and not usable.any():
        raise SchnRayError(
            f"{location} has no features of the {n:,} images with near codes, such as {ids[0]}: "
            "embed the images that were encoded"
        )
    X = VectorColumn(table["vector"]).take(position.drop_null().to_numpy().astype(np.int64))
    vectors = np.zeros((n, X.shape[1]), np.float32)
    vectors[usable] = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-9)
    return replace(
        evidence,
        limit=FEATURES_LIMIT,
        vectors=vectors,
        usable=usable,
        unread=int((~usable).sum()),
    )
