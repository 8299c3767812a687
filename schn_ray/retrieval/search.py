"""Search an index as a person does: by image files, by ids that are in it, by codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.index import check_codes
from schn_ray.retrieval.index.union import Searchable, open_union

if TYPE_CHECKING:  # torch takes seconds to import, and ids and codes need none
    from schn_ray.models.hasher import Hasher


@dataclass(frozen=True)
class Hit:
    """A gallery image and its Hamming distance to the query, in bits."""

    id: str
    uri: str
    distance: int


@dataclass(frozen=True)
class Result:
    """What was found for one query, nearest first; equal distances in the order of ids.

    Attributes:
        query: an image's path, an id or a code.
        uri: where the query's image is, if it has one.
        hits: the nearest.
        tied: how many images of the gallery lie at the last hit's distance; None with a radius.
        within_radius: how many lie within the radius, shown or not; None without one.
    """

    query: str
    uri: str
    hits: tuple[Hit, ...]
    tied: int | None = None
    within_radius: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class SearchLimits:
    """How much is asked for: the k nearest, all within a radius, or the k nearest of those."""

    k: int | None = 10
    radius: int | None = None


@dataclass(frozen=True, eq=False)
class Queries:
    """What is looked for.

    Attributes:
        names: [q], as the user wrote them.
        uris: [q], where their images are, or "".
        codes: uint8 [q, w].
        rows: int64 [q], their rows in the index, which are not found again; -1: not from there.
    """

    names: Sequence[str]
    uris: Sequence[str]
    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]


def search_images(
    index_path: Path, model: Path, images: Sequence[Path], k: int = 10
) -> list[Result]:
    """Find the k gallery images nearest to each image.

    Raises:
        SchnRayError: an image can't be read, or the index was coded by another model.
    """
    return search_indexes([index_path], SearchLimits(k), images, model)


def search_indexes(
    indexes: Sequence[Path | str],
    wanted: SearchLimits,
    images: Sequence[Path] = (),
    model: Path | str | None = None,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
) -> list[Result]:
    """Search one index or several as one, for images, then ids, then codes.

    Raises:
        SchnRayError: nothing to look for, images without a model, or as the functions below.
    """
    if not (images or ids or codes):
        raise SchnRayError("nothing to look for: name images, --id ID or --code CODE")
    index = open_union(indexes)
    results = list[Result]()
    if images:
        if model is None:
            raise SchnRayError("--model RUN is missing: images are coded by the index's model")
        from schn_ray.models.hasher import load

        results += search_codes(index, image_queries(index, load(model), images), wanted)
    if ids:
        results += search_codes(index, id_queries(index, ids), wanted)
    if codes:
        results += search_codes(index, code_queries(index, codes), wanted)
    return results


def image_queries(index: Searchable, hasher: Hasher, images: Sequence[Path]) -> Queries:
    """Code images to look for.

    Raises:
        SchnRayError: an image can't be read, or the index was coded by another model.
    """
    require_same_model(index, hasher)
    names = [str(image) for image in images]
    return Queries(names, names, hasher.encode(images), np.full(len(names), -1))


def id_queries(index: Searchable, ids: Sequence[str]) -> Queries:
    """Look for more like these, which are in the index.

    Raises:
        SchnRayError: an id is not there.
    """
    rows = np.array([index.find(id) for id in ids], np.int64)
    return Queries(ids, index.uris(rows), index.codes(rows), rows)


def code_queries(index: Searchable, codes: Sequence[str]) -> Queries:
    """Look for codes, written as the hexadecimal digits of their bytes.

    Raises:
        SchnRayError: no such code of the index's bits.
    """
    width = -(-index.bits // 8)
    try:
        packed = [bytes.fromhex(code) for code in codes]
    except ValueError as error:
        raise SchnRayError(f"a code is not hexadecimal: {error}") from error
    for code, content in zip(codes, packed, strict=True):
        if len(content) != width:
            raise SchnRayError(
                f"the code {code} has {len(content)} bytes; the index holds {index.bits} bits: "
                f"wanted {2 * width} hexadecimal digits"
            )
    table = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, width)
    check_codes(table, index.bits, "the codes")
    return Queries(codes, [""] * len(codes), table, np.full(len(codes), -1))


def search_codes(index: Searchable, queries: Queries, wanted: SearchLimits) -> list[Result]:
    """Answer queries, exactly; a query that is in the index itself is left out of its result.

    Raises:
        SchnRayError: codes of other bits, or a damaged index.
    """
    # one more where the query may be found itself
    own = queries.rows >= 0
    results: list[Result] = []
    for asked in (np.flatnonzero(own), np.flatnonzero(~own)):
        if len(asked):
            extra = bool(own[asked[0]])
            results += _answers(index, queries, asked, wanted, extra)
    order = np.argsort(np.concatenate([np.flatnonzero(own), np.flatnonzero(~own)]))
    return [results[place] for place in order]


def _answers(
    index: Searchable, queries: Queries, asked: NDArray[np.int64], wanted: SearchLimits, extra: bool
) -> list[Result]:
    k = None if wanted.k is None else wanted.k + extra
    results = []
    if wanted.radius is not None:
        near = index.within(queries.codes[asked], wanted.radius, k)
        for place, query in enumerate(asked.tolist()):
            rows, distances = near.rows_of(place)
            rows, distances = _others(rows, distances, int(queries.rows[query]), wanted.k)
            within = int(near.found[place]) - extra
            results.append(_result(index, queries, query, rows, distances, None, within))
        return results
    matches = index.search(queries.codes[asked], k or len(index))
    for place, query in enumerate(asked.tolist()):
        rows, distances = matches.rows[place], matches.distances[place]
        rows, distances = _others(rows, distances, int(queries.rows[query]), wanted.k)
        itself = bool(extra and len(distances) and distances[-1] == 0)
        tied = int(matches.tied[place]) - itself if len(distances) else 0
        results.append(_result(index, queries, query, rows, distances, tied, None))
    return results


def _others(
    rows: NDArray[np.int64], distances: NDArray[np.int32], itself: int, k: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    keep = np.flatnonzero(rows != itself)[:k]
    return rows[keep], distances[keep]


def _result(
    index: Searchable,
    queries: Queries,
    query: int,
    rows: NDArray[np.int64],
    distances: NDArray[np.int32],
    tied: int | None,
    within_radius: int | None,
) -> Result:
    found_rows = zip(index.ids(rows), index.uris(rows), distances.tolist(), strict=True)
    hits = tuple(Hit(*hit) for hit in found_rows)
    return Result(queries.names[query], queries.uris[query], hits, tied, within_radius)


def require_same_model(index: Searchable, hasher: Hasher) -> None:
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


def results_text(results: Sequence[Result]) -> str:
    """Return results as lines: distance, id and where the image is."""
    lines = []
    for result in results:
        more = (
            "" if result.within_radius is None else f": {result.within_radius:,} within the radius"
        )
        lines.append(f"{result.query}{more}")
        lines += [f"  {hit.distance:4}  {hit.id}  {hit.uri}" for hit in result.hits]
    return "\n".join(lines)


def results_paths(results: Sequence[Result]) -> str:
    """Return where the images are, a line each, each once: for pipes."""
    return "\n".join(dict.fromkeys(hit.uri for result in results for hit in result.hits))
