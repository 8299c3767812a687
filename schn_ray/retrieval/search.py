"""Search an index for image files, for ids that are in it, or for codes; show the results.

``search`` opens the indexes and takes all three kinds of query. ``search_codes`` leaves a query
that is itself in the index out of its own result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.index import bytes_per_code, check_codes
from schn_ray.retrieval.index.union import Searchable, open_union

if TYPE_CHECKING:  # torch takes seconds to import, and ids and codes need none
    from schn_ray.models.hasher import Hasher


@dataclass(frozen=True)
class Hit:
    """A matching image of the gallery.

    Attributes:
        id: of the image.
        uri: location of the image.
        distance: Hamming distance to the query, in bits.
    """

    id: str
    uri: str
    distance: int


@dataclass(frozen=True)
class Result:
    """The result of one query.

    Attributes:
        query: an image's path, an id or a code, as the user wrote it.
        uri: location of the query's image; "" for a code.
        hits: the matches, nearest first, equal distances in the order of ids.
        tied: images of the gallery at the last hit's distance; None for a search with a radius.
        within_radius: images of the gallery within the radius, among the hits or not; None for a
            search without a radius.
    """

    query: str
    uri: str
    hits: tuple[Hit, ...]
    tied: int | None = None
    within_radius: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as dicts, lists, strings and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class SearchLimits:
    """Limits of a search: the k nearest, all within a radius, or the k nearest of those.

    Attributes:
        k: results of each query; None for all within the radius.
        radius: in bits; None for any distance.
    """

    k: int | None = 10
    radius: int | None = None


@dataclass(frozen=True, eq=False)
class Queries:
    """The q queries of a search.

    Attributes:
        names: [q], as the user wrote them.
        uris: [q], locations of their images; "" for a code.
        codes: uint8 [q, w], packed.
        rows: int64 [q], row numbers in the index, to be left out of the result; -1 for a query that
            is not in the index.
    """

    names: Sequence[str]
    uris: Sequence[str]
    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]


def search_images(
    index_path: Path, model: Path, images: Sequence[Path], k: int = 10
) -> list[Result]:
    """Find the k gallery images nearest to each image.

    Args:
        index_path: an index.
        model: the run or model directory that encoded it.
        images: files to search for.
        k: results of each.

    Returns:
        A result for each image, in their order.

    Raises:
        SchnRayError: an image cannot be read, or the index was encoded by another model.
    """
    return search_indexes([index_path], SearchLimits(k), images, model)


def search_indexes(
    indexes: Sequence[Path | str],
    limits: SearchLimits,
    images: Sequence[Path] = (),
    model: Path | str | None = None,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
) -> list[Result]:
    """Search one index, or more than one as if they were one.

    Args:
        indexes: of one model; each a path or a URI.
        limits: how many results, how near.
        images: files to search for; they need ``model``. Where it takes vectors, ``.npy`` files.
        model: the run or model that encoded the indexes, a path or a URI.
        ids: ids of the indexes: search for images like these.
        codes: codes to search for, in hexadecimal.

    Returns:
        A result for each image, then for each id, then for each code.

    Raises:
        SchnRayError: no queries, images without a model, or as ``file_queries``, ``id_queries``
            and ``code_queries``.

    Example:
        ``search(["index"], SearchLimits(k=5), ids=["cats/001.jpg"])[0].hits``
    """
    if not (images or ids or codes):
        raise SchnRayError("nothing to search for: name images, --id ID or --code CODE")
    index = open_union(indexes)
    results = list[Result]()
    if images:
        if model is None:
            raise SchnRayError("--model RUN is missing: name the model that encoded the index")
        from schn_ray.models.hasher import load

        results += search_codes(index, file_queries(index, load(model), images), limits)
    if ids:
        results += search_codes(index, id_queries(index, ids), limits)
    if codes:
        results += search_codes(index, code_queries(index, codes), limits)
    return results


def file_queries(index: Searchable, hasher: Hasher, files: Sequence[Path]) -> Queries:
    """Encode what files hold: images, or vectors where the model takes those.

    Args:
        index: the index to search.
        hasher: the model that encoded it.
        files: of images; or ``.npy`` files of one vector [d] or more [n, d].

    Raises:
        SchnRayError: a file cannot be read, or the index was encoded by another model.
    """
    require_same_model(index, hasher)
    if hasher.input == "images":
        names = [str(file) for file in files]
        return Queries(names, names, hasher.encode(files), np.full(len(names), -1))
    read = [_read_vectors(file) for file in files]
    names = [
        str(file) if len(X) == 1 else f"{file}#{row}"
        for file, X in zip(files, read, strict=True)
        for row in range(len(X))
    ]
    codes = np.concatenate([hasher.encode(X) for X in read])
    return Queries(names, names, codes, np.full(len(names), -1))


def _read_vectors(file: Path) -> NDArray[np.float32]:
    try:
        X = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SchnRayError(
            f"{file} has no vectors that can be read: {error}. The model takes vectors: give .npy "
            "files, of one vector [d] or more [n, d]"
        ) from error
    return np.atleast_2d(X).astype(np.float32)


def id_queries(index: Searchable, ids: Sequence[str]) -> Queries:
    """Take the codes of indexed images, to search for others like them.

    Args:
        index: the index to search.
        ids: ids that it has.

    Raises:
        UnknownId: an id is not in the index.
    """
    rows = np.array([index.find(id) for id in ids], np.int64)
    return Queries(ids, index.uris(rows), index.codes(rows), rows)


def code_queries(index: Searchable, codes: Sequence[str]) -> Queries:
    """Read codes to search for.

    Args:
        index: the index to search.
        codes: each the hexadecimal digits of its bytes.

    Raises:
        SchnRayError: not hexadecimal, or not a code of the index's bits.
    """
    width = bytes_per_code(index.bits)
    try:
        packed = [bytes.fromhex(code) for code in codes]
    except ValueError as error:
        raise SchnRayError(
            f"a code is not hexadecimal: {error}; give {2 * width} digits 0 to 9, a to f"
        ) from error
    for code, content in zip(codes, packed, strict=True):
        if len(content) != width:
            raise SchnRayError(
                f"the code {code} has {len(content)} bytes; the index holds {index.bits} bits: "
                f"give a code that has {2 * width} hexadecimal digits"
            )
    table = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, width)
    check_codes(table, index.bits, "the codes")
    return Queries(codes, [""] * len(codes), table, np.full(len(codes), -1))


def search_codes(index: Searchable, queries: Queries, limits: SearchLimits) -> list[Result]:
    """Search for the codes of queries, exactly.

    Args:
        index: the index to search.
        queries: the queries; one with a row in the index is left out of its own result.
        limits: how many results, how near.

    Returns:
        A result for each query, in their order.

    Raises:
        SchnRayError: codes of other bits, or a damaged index.
    """
    indexed = queries.rows >= 0
    groups = np.flatnonzero(indexed), np.flatnonzero(~indexed)
    results: list[Result] = []
    for group in groups:
        if len(group):
            # an indexed query matches itself: one more match is needed
            extra = bool(indexed[group[0]])
            results += _search_group(index, queries, group, limits, extra)
    order = np.argsort(np.concatenate(groups))
    return [results[i] for i in order]


def _search_group(
    index: Searchable, queries: Queries, group: NDArray[np.int64], limits: SearchLimits, extra: bool
) -> list[Result]:
    k = None if limits.k is None else limits.k + extra
    results = []
    if limits.radius is not None:
        near = index.within(queries.codes[group], limits.radius, k)
        for i, query in enumerate(group.tolist()):
            rows, distances = near.rows_of(i)
            rows, distances = _others(rows, distances, int(queries.rows[query]), limits.k)
            within_radius = int(near.within_radius[i]) - extra
            results.append(_result(index, queries, query, rows, distances, None, within_radius))
        return results
    matches = index.search(queries.codes[group], k or len(index))
    for i, query in enumerate(group.tolist()):
        rows, distances = matches.rows[i], matches.distances[i]
        rows, distances = _others(rows, distances, int(queries.rows[query]), limits.k)
        itself = bool(extra and len(distances) and distances[-1] == 0)
        tied = int(matches.tied[i]) - itself if len(distances) else 0
        results.append(_result(index, queries, query, rows, distances, tied, None))
    return results


def _others(
    rows: NDArray[np.int64], distances: NDArray[np.int32], itself: int, k: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    others = np.flatnonzero(rows != itself)[:k]
    return rows[others], distances[others]


def _result(
    index: Searchable,
    queries: Queries,
    query: int,
    rows: NDArray[np.int64],
    distances: NDArray[np.int32],
    tied: int | None,
    within_radius: int | None,
) -> Result:
    columns = zip(index.ids(rows), index.uris(rows), distances.tolist(), strict=True)
    hits = tuple(Hit(*hit) for hit in columns)
    return Result(queries.names[query], queries.uris[query], hits, tied, within_radius)


def require_same_model(index: Searchable, hasher: Hasher) -> None:
    """Refuse a model that did not encode the index.

    Args:
        index: the index to search.
        hasher: the model that encodes the queries.

    Raises:
        SchnRayError: other bits, or other weights.
    """
    if index.bits != hasher.bits:
        raise SchnRayError(
            f"the index holds codes of {index.bits} bits, the model makes {hasher.bits}: "
            "use the model that encoded the index"
        )
    if index.model != hasher.fingerprint:
        raise SchnRayError(
            "the index was encoded by another model of as many bits, so codes cannot be compared. "
            "Use that model, or encode and index the gallery with this one"
        )


def results_text(results: Sequence[Result]) -> str:
    """Return results as lines: each query, then distance, id and uri of its hits.

    Args:
        results: of any number of queries.
    """
    lines = []
    for result in results:
        count = result.within_radius
        lines.append(result.query + ("" if count is None else f": {count:,} within the radius"))
        lines += [f"  {hit.distance:4}  {hit.id}  {hit.uri}" for hit in result.hits]
    return "\n".join(lines)


def results_paths(results: Sequence[Result]) -> str:
    """Return the uris of all hits, one a line, each once, for pipes.

    Args:
        results: of any number of queries.
    """
    return "\n".join(dict.fromkeys(hit.uri for result in results for hit in result.hits))
