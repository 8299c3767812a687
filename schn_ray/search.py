"""Search an index by image files: the model codes them, the index ranks, pictures on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schn_ray.errors import SchnRayError
from schn_ray.hasher import Hasher, load
from schn_ray.index import Index, open_index


@dataclass(frozen=True)
class Hit:
    """A gallery image and its Hamming distance to the query, in bits."""

    id: str
    uri: str
    distance: int


@dataclass(frozen=True)
class Result:
    """What was found for one query image, nearest first.

    Attributes:
        query: the image's path.
        hits: the k nearest; equal distances in the order of ids.
        tied: how many images of the gallery lie at the last hit's distance.
    """

    query: str
    hits: tuple[Hit, ...]
    tied: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def search_images(
    index_path: Path, model: Path, images: Sequence[Path], k: int = 10
) -> list[Result]:
    """Find the k gallery images nearest to each image.

    Raises:
        SchnRayError: an image can't be read, or the index was coded by another model.
    """
    index, hasher = open_index(index_path), load(model)
    require_same_model(index, hasher)
    matches = index.search(hasher.encode(images), k)
    results = []
    for query, image in enumerate(images):
        found = zip(
            matches.ids(query), matches.uris(query), matches.distances[query].tolist(), strict=True
        )
        hits = tuple(Hit(*hit) for hit in found)
        results.append(Result(str(image), hits, int(matches.tied[query])))
    return results


def require_same_model(index: Index, hasher: Hasher) -> None:
    """Refuse to compare codes of different models.

    Raises:
        SchnRayError: other bits, or other weights.
    """
    if index.bits != hasher.bits:
        raise SchnRayError(
            f"the index holds codes of {index.bits} bits, the model makes {hasher.bits}: "
            "use the model that coded the index"
        )
    if index.model != hasher.fingerprint:
        raise SchnRayError(
            "the index was coded by another model of as many bits; its codes mean something else. "
            "Use that model, or encode and index the gallery with this one"
        )


def as_text(results: Sequence[Result]) -> str:
    """Return results as lines: distance, id and where the image is."""
    lines = []
    for result in results:
        lines.append(f"{result.query}")
        lines += [f"  {hit.distance:4}  {hit.id}  {hit.uri}" for hit in result.hits]
    return "\n".join(lines)
