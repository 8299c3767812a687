"""Search an index for image files, for ids that are in it, or for codes; show the results.

``search`` opens the indexes and takes all three kinds of query. ``search_codes`` leaves a query
that is itself in the index out of its own result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.models.image_inputs import Images, is_empty
from schn_ray.retrieval.index.contents import put_identical_first, put_identical_first_scored
from schn_ray.retrieval.index.matches import Scored
from schn_ray.retrieval.index.scores import weights_of
from schn_ray.retrieval.index.union import Searchable, open_union
from schn_ray.retrieval.index.vectors import VECTORS, VectorName
from schn_ray.retrieval.queries import (
    Queries,
    code_queries,
    encoded_again,
    file_queries,
    id_queries,
    with_own_vectors,
)

RESCORINGS = ("query", *VECTORS)
OVERSAMPLE = 10  # unless another is named


@dataclass(frozen=True)
class Hit:
    """A matching image of the gallery.

    Attributes:
        id: of the image.
        uri: location of the image.
        distance: Hamming distance to the query, in bits.
        score: of a rescored search, q . b or a cosine; None of another.
    """

    id: str
    uri: str
    distance: int
    score: float | None = None


@dataclass(frozen=True)
class Result:
    """The result of one query.

    Attributes:
        query: an image's path, an id or a code, as the user wrote it.
        uri: location of the query's image; "" for a code.
        hits: the matches, nearest first, equal distances in the order of ids. Of a rescored
            search, the best score first, equal scores in the order of ids.
        tied: images of the gallery at the last hit's distance, or with its score; None for a
            search with a radius.
        within_radius: images of the gallery within the radius, among the hits or not; None for a
            search without a radius.
        rescored: what the hits are ordered by; None: by distance.
        candidates: images that were scored, the nearest by distance; None where no other could be
            among the hits, whatever its score.
        proven: whether no other image of the gallery can have a better score.
        where: the condition that all hits meet; None for a search without a filter.
        passing: images of the gallery that meet it.
        rows: number of each hit's row in the gallery.
    """

    query: str
    uri: str
    hits: tuple[Hit, ...]
    tied: int | None = None
    within_radius: int | None = None
    rescored: str | None = None
    candidates: int | None = None
    proven: bool = True
    where: str | None = None
    passing: int | None = None
    rows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as dicts, lists, strings and numbers; no score without rescoring."""
        values = asdict(self)
        del values["rows"]
        if self.where is None:
            del values["where"], values["passing"]
        if self.rescored is None:
            del values["rescored"], values["candidates"], values["proven"]
            for hit in values["hits"]:
                del hit["score"]
        return values

    @property
    def choice(self) -> str:
        """A sentence on how many images were scored; "" for a search that is exact."""
        if self.candidates is None:
            return ""
        if self.proven:
            return f"all {self.candidates:,} scored by {self.rescored}"
        return (
            f"the nearest {self.candidates:,} by bits scored by {self.rescored}: a choice, a "
            "farther one may score higher"
        )


@dataclass(frozen=True)
class SearchLimits:
    """Limits of a search: the k nearest, all within a radius, or the k nearest of those.

    Attributes:
        k: results of each query; None for all within the radius.
        radius: in bits; None for any distance.
        rescore: what the results are ordered by, see ``RESCORINGS``; None: by distance.
        oversample: how many times k of the nearest by distance are scored by vectors of the index,
            all ties of the last one, too; None: ``OVERSAMPLE``.
        where: a condition that all results meet, see ``where``; None for all.

    Raises:
        SchnRayError: an unknown rescoring, or ``oversample`` where nothing is chosen by it.
    """

    k: int | None = 10
    radius: int | None = None
    rescore: str | None = None
    oversample: int | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if self.rescore is not None and self.rescore not in RESCORINGS:
            raise SchnRayError(
                f"rescoring {self.rescore!r} is unknown; expected {' or '.join(RESCORINGS)}"
            )
        if self.oversample is None:
            return
        if self.rescore not in VECTORS:
            raise SchnRayError(
                "--oversample says how many are scored by --rescore relaxed or features; any other "
                "search is exact without it"
            )
        if self.k is None:
            raise SchnRayError("--oversample is times k: name -k; without it, all within -r count")
        if self.oversample < 1:
            raise SchnRayError(f"--oversample is {self.oversample}; the least is 1")

    @property
    def vectors(self) -> VectorName | None:
        """The vectors of the index that score; None: nothing, or the query alone, does."""
        return next((name for name in VECTORS if name == self.rescore), None)

    @property
    def candidates(self) -> int | None:
        """How many of the nearest are scored; None: all within the radius."""
        return None if self.k is None else self.k * (self.oversample or OVERSAMPLE)


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
    images: Images = (),
    model: Path | str | None = None,
    ids: Sequence[str] = (),
    codes: Sequence[str] = (),
) -> list[Result]:
    """Search one index, or more than one as if they were one.

    Args:
        indexes: of one model; each a path or a URI.
        limits: how many results, how near.
        images: to search for, see ``image_list``; they need ``model``. Where it takes vectors,
            those, or ``.npy`` files.
        model: the run or model that encoded the indexes, a path or a URI.
        ids: ids of the indexes: search for images like these.
        codes: codes to search for, in hexadecimal.

    Returns:
        A result for each image, then for each id, then for each code. Rescored by ``query``, an id
        means the image of that row, which is read and encoded again; by vectors of the index, its
        own vector.

    Raises:
        SchnRayError: no queries, images without a model, codes to be rescored, or as
            ``file_queries``, ``id_queries`` and ``code_queries``.

    Example:
        ``search(["index"], SearchLimits(k=5), ids=["cats/001.jpg"])[0].hits``
    """
    has_images = not is_empty(images)
    if not (has_images or ids or codes):
        raise SchnRayError("nothing to search for: name images, --id ID or --code CODE")
    if codes and limits.rescore is not None:
        raise SchnRayError(
            "a code is only signs, so there is nothing to rescore with: search for the image, or "
            "for codes without --rescore"
        )
    index, hasher = open_union(indexes), None
    again = limits.rescore is not None and limits.vectors is None  # ids are encoded again
    if limits.where is not None:
        index = index.where(limits.where)
    if has_images or (ids and again):
        if model is None:
            raise SchnRayError("--model RUN is missing: name the model that encoded the index")
        from schn_ray.models.load import load

        hasher = load(model)
    results = list[Result]()
    if has_images and hasher is not None:
        results += search_codes(index, file_queries(index, hasher, images), limits)
    if ids:
        queries = id_queries(index, ids)
        if limits.vectors is not None:
            queries = with_own_vectors(index, queries, limits.vectors)
        elif again and hasher is not None:
            queries = encoded_again(index, hasher, queries)
        results += search_codes(index, queries, limits)
    if codes:
        results += search_codes(index, code_queries(index, codes), limits)
    return results


def search_codes(index: Searchable, queries: Queries, limits: SearchLimits) -> list[Result]:
    """Search for the codes of queries, exactly.

    Args:
        index: the index to search; where there is a filter, ``Index.where`` of it.
        queries: the queries; one with a row in the index is left out of its own result.
        limits: how many results, how near.

    Returns:
        A result for each query, in their order.

    Raises:
        SchnRayError: codes of other bits, or a damaged index.
    """
    # those that do not pass a filter are not in their own results
    indexed = queries.rows >= 0
    indexed[indexed] = index.passes(queries.rows[indexed])
    groups = np.flatnonzero(indexed), np.flatnonzero(~indexed)
    results: list[Result] = []
    for group in groups:
        if len(group):
            # an indexed query matches itself: one more match is needed
            extra = bool(indexed[group[0]])
            results += _search_group(index, queries, group, limits, extra)
    if limits.where is not None:
        passing = len(index)
        results = [replace(result, where=limits.where, passing=passing) for result in results]
    order = np.argsort(np.concatenate(groups))
    return [results[i] for i in order]


def _search_group(
    index: Searchable, queries: Queries, group: NDArray[np.int64], limits: SearchLimits, extra: bool
) -> list[Result]:
    k = None if limits.k is None else limits.k + extra
    if limits.rescore is not None:
        return _rescored_group(index, queries, group, limits, extra)
    results = []
    if limits.radius is not None:
        near = index.within(queries.codes[group], limits.radius, k)
        ranked = near.starts, near.rows, near.distances
        put_identical_first(
            index, queries.codes[group], queries.digests(group), *ranked, radius=limits.radius
        )
        for i, query in enumerate(group.tolist()):
            rows, distances = near.rows_of(i)
            rows, distances = _others(rows, distances, int(queries.rows[query]), limits.k)
            within_radius = int(near.within_radius[i]) - extra
            results.append(_result(index, queries, query, rows, distances, None, within_radius))
        return results
    matches = index.search(queries.codes[group], k or max(1, len(index)))
    starts = np.arange(len(group) + 1) * matches.rows.shape[1]
    ranked = starts, matches.rows.reshape(-1), matches.distances.reshape(-1)  # no copies
    put_identical_first(index, queries.codes[group], queries.digests(group), *ranked)
    for i, query in enumerate(group.tolist()):
        rows, distances = matches.rows[i], matches.distances[i]
        rows, distances = _others(rows, distances, int(queries.rows[query]), limits.k)
        itself = bool(extra and len(distances) and distances[-1] == 0)
        tied = int(matches.tied[i]) - itself if len(distances) else 0
        results.append(_result(index, queries, query, rows, distances, tied, None))
    return results


def _rescored_group(
    index: Searchable, queries: Queries, group: NDArray[np.int64], limits: SearchLimits, extra: bool
) -> list[Result]:
    scored = scored_rows(index, queries, group, limits, extra)
    if limits.vectors is None and queries.relaxed is not None:
        put_identical_first_scored(
            index, queries.relaxed[group], queries.digests(group), scored, limits.radius
        )
    results = []
    for i, query in enumerate(group.tolist()):
        rows, scores, distances = scored.rows_of(i)
        others = np.flatnonzero(rows != queries.rows[query])[: limits.k]
        tied = int(scored.tied[i]) if len(others) else 0
        if extra and len(others):
            last = scores[others[-1]]
            tied = tied if last == scores[-1] else int((scores == last).sum())
            own = scores[0] if limits.vectors else _own_score(index, queries, query)
            tied -= int(own == last)
        within = None if scored.within_radius is None else int(scored.within_radius[i]) - extra
        scored_others = None if scored.candidates is None else int(scored.candidates[i]) - extra
        of = len(index) - extra if within is None else within
        columns = index.ids(rows[others]), index.uris(rows[others])
        values = distances[others].tolist(), scores[others].tolist()
        hits = tuple(Hit(*hit) for hit in zip(*columns, *values, strict=True))
        results.append(
            Result(
                queries.names[query],
                queries.uris[query],
                hits,
                tied if within is None else None,
                within,
                limits.rescore,
                scored_others,
                scored_others is None or scored_others == of,
                rows=tuple(rows[others].tolist()),
            )
        )
    return results


def scored_rows(
    index: Searchable,
    queries: Queries,
    group: NDArray[np.int64],
    limits: SearchLimits,
    extra: int = 0,
) -> Scored:
    """Search by score for some of the queries.

    Args:
        index: the index to search.
        queries: with what ``limits.rescore`` needs of them.
        group: int64 [g], numbers of the queries.
        limits: how many results, how near, and the score.
        extra: results, and candidates, of each query beyond those.

    Raises:
        SchnRayError: as ``Index.scored`` and ``Index.rescored``.
    """
    k = None if limits.k is None else limits.k + extra
    if limits.vectors is None:
        assert queries.relaxed is not None
        return index.scored(queries.relaxed[group], k, limits.radius)
    vectors = queries.relaxed if limits.vectors == "relaxed" else queries.features
    assert vectors is not None
    most = None if limits.candidates is None else limits.candidates + extra
    return index.rescored(
        limits.vectors, queries.codes[group], vectors[group], k, most, limits.radius
    )


def _own_score(index: Searchable, queries: Queries, query: int) -> float:
    """Return the score of a query's own row."""
    assert queries.relaxed is not None
    weights = weights_of(queries.relaxed[[query]])
    losses = weights.losses(index.codes(queries.rows[[query]])[None])
    return float(weights.scores(np.zeros(1, np.int64), losses[0])[0])


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
    names = queries.names[query], queries.uris[query]
    return Result(*names, hits, tied, within_radius, rows=tuple(rows.tolist()))


def results_text(results: Sequence[Result]) -> str:
    """Return results as lines: each query, then distance, score, id and uri of its hits.

    Args:
        results: of any number of queries.
    """
    lines = []
    for result in results:
        counts = {"within the radius": result.within_radius, "pass the filter": result.passing}
        known = [f"{count:,} {what}" for what, count in counts.items() if count is not None]
        known += [result.choice] if result.choice else []
        lines.append(result.query + (f": {', '.join(known)}" if known else ""))
        lines += [f"  {_order(hit)}  {hit.id}  {hit.uri}" for hit in result.hits]
    return "\n".join(lines)


def _order(hit: Hit) -> str:
    return f"{hit.distance:4}" + ("" if hit.score is None else f"  {hit.score:9.4f}")


def results_paths(results: Sequence[Result]) -> str:
    """Return the uris of all hits, one a line, each once, for pipes.

    Args:
        results: of any number of queries.
    """
    return "\n".join(dict.fromkeys(hit.uri for result in results for hit in result.hits))
