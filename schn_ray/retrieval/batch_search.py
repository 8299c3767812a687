"""Search for all codes of a ``codes`` directory: each part of codes becomes a part of matches.

A directory of kind ``matches`` has a ``matches-*.parquet`` for every part of the queries' codes.
Its columns are ``query`` (id), ``ids`` and ``distances`` (lists, nearest first, equal distances in
the order of ids), ``scores`` of a rescored search, whose order they are, ``candidates`` of one by
vectors, and ``tied`` or ``within_radius`` (see ``search.Result``). A part is complete or
missing; its receipt in ``receipts/`` has its SHA-256. After an interruption, the same call writes
only parts without a receipt.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import open_artefact, read_verified
from schn_ray.core.atomic_files import sha256_file, writing
from schn_ray.core.directories import resumable_directory
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import (
    as_location,
    join,
    names_in,
    new_file,
    read_file,
    write_file,
)
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.receipts import ID
from schn_ray.data.shards.rows import Shard
from schn_ray.retrieval.code_files import (
    CODE,
    FEATURES,
    RELAXED,
    SHA256,
    code_features,
    packed_codes,
    part_names,
    relaxed_codes,
)
from schn_ray.retrieval.index.contents import (
    contents_of,
    put_identical_first,
    put_identical_first_scored,
)
from schn_ray.retrieval.index.index import open_index
from schn_ray.retrieval.index.union import Searchable, as_one
from schn_ray.retrieval.queries import Queries
from schn_ray.retrieval.search import SearchLimits, scored_rows

_ROWS_AT_ONCE = 4096
_LEAST_FLOAT16 = 2.0**-24


def search_gallery(
    indexes: Sequence[Path | str],
    queries: Path | str,
    out: Path | str,
    limits: SearchLimits,
    map_shards: MapShards = map_locally,
) -> Manifest:
    """Search the indexes for every code of a ``codes`` directory.

    Args:
        indexes: at least one, of one model, searched as one; each a path or a URI.
        queries: a ``codes`` directory of the same model, a path or a URI.
        out: directory for ``matches-*.parquet`` and the manifest, a path or a URI.
        limits: how many matches, how near.
        map_shards: applies a function to all parts; ``map_locally`` does it in this process.

    Returns:
        The manifest of ``out``.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: other models, damaged files, or ``out`` holds something else.
    """
    locations, source_location = [as_location(path) for path in indexes], as_location(queries)
    each_index = [open_index(path) for path in indexes]
    opened, codes = as_one(each_index), local_copy(queries)
    codes_files = open_artefact(codes, "codes")
    source = codes_files.manifest
    _require_same_model(opened, source, source_location)
    config: dict[str, Any] = {"k": limits.k, "radius": limits.radius}
    if limits.rescore is not None:
        config["rescore"] = limits.rescore
        _require_vectors(source, source_location, limits.rescore)
        if limits.vectors is not None:
            config["candidates"] = limits.candidates
            for index in each_index:
                index.row_vectors(limits.vectors)  # that it has them
    if limits.where is not None:
        config["where"] = limits.where
        opened = opened.where(limits.where)
    made_from = {
        "indexes": [index.manifest.fingerprint for index in each_index],
        "queries": source.fingerprint,
    }
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "matches", config, made_from) as draft,
    ):
        mirror.send()
        codes_files.check()
        shards = [_shard(codes, name, source.files[name]) for name in part_names(source.files)]
        existing = names_in(mirror.location)
        missing = [
            shard
            for shard in shards
            if _part_name(shard) not in existing or _receipt(mirror.location, shard) is None
        ]
        work = functools.partial(
            search_part,
            indexes=locations,
            queries=source_location,
            versions=tuple(made_from["indexes"]),
            out=mirror.location,
            limits=limits,
        )
        for _ in map_shards(work, missing):
            pass  # rows are counted below, with those of parts that existed before
        for path in mirror.local.rglob("*.partial"):
            path.unlink()  # of killed workers
        rows, expected = 0, sum(shard.rows for shard in shards)
        for shard in shards:
            if (receipt := _receipt(mirror.location, shard)) is None:
                raise SchnRayError(
                    f"{_receipt_path(mirror.location, shard)} is lost; run the same command again"
                )
            draft.known[_part_name(shard)] = receipt.sha256, receipt.size
            draft.known[_receipt_path("", shard)] = receipt.own
            rows += receipt.queries
        if rows != expected:
            raise SchnRayError(
                f"{out}: its parts hold {rows:,} queries, expected {expected:,}; remove {out} and "
                "run the same command again"
            )
        counted = "rows" if limits.where is None else "rows_that_pass"
        draft.counts |= {"queries": rows, "parts": len(shards), counted: len(opened)}
    return read_manifest(mirror.local, "matches")


def search_part(
    shard: Shard,
    indexes: Sequence[str],
    versions: Sequence[str],
    queries: str,
    out: str,
    limits: SearchLimits,
) -> int:
    """Search for the codes of one part and write its matches.

    Args:
        shard: the part of the queries.
        indexes: locations of the indexes.
        versions: their fingerprints when the search began.
        queries: location of the ``codes`` directory.
        out: location of the directory to write to.
        limits: how many matches, how near.

    Returns:
        The part's number.

    Raises:
        SchnRayError: a damaged index or part of the queries, or no room to write.
    """
    path, schema = _part(out, shard), _schema(limits)
    index = _opened(tuple(indexes), tuple(versions), limits.where)
    (name,), (sha256,) = shard.files, shard.stamps
    content = io.BytesIO(read_verified(join(queries, name), sha256, "codes"))
    with (
        pq.ParquetFile(content) as part,
        writing(path),
        new_file(path) as partial_path,
        pq.ParquetWriter(partial_path, schema) as writer,
    ):
        column = FEATURES if limits.rescore == FEATURES else RELAXED
        columns = [ID, CODE] if limits.rescore is None else [ID, CODE, column]
        columns += [SHA256] if SHA256 in part.schema_arrow.names else []
        for batch in part.iter_batches(_ROWS_AT_ONCE, columns=columns):
            table = pa.Table.from_batches([batch])
            writer.write_table(_matches(index, table, limits).cast(schema))
        writer.close()
        size, sha256 = partial_path.stat().st_size, sha256_file(partial_path)
    values = {"sha256": sha256, "bytes": size, "queries": shard.rows}
    receipt = _receipt_path(out, shard)
    with writing(receipt):
        write_file(receipt, json.dumps(values).encode())
    return shard.number


def _schema(limits: SearchLimits) -> pa.Schema:
    scores = {} if limits.rescore is None else {"scores": pa.list_(pa.float64())}
    if limits.vectors is not None:
        scores["candidates"] = pa.int64()
    return pa.schema(
        {
            "query": pa.string(),
            "ids": pa.list_(pa.string()),
            "distances": pa.list_(pa.int32()),
            **scores,
            "tied" if limits.radius is None else "within_radius": pa.int64(),
        }
    )


def _matches(index: Searchable, table: pa.Table, limits: SearchLimits) -> pa.Table:
    codes, digests, scores = packed_codes(table), contents_of(table), dict[str, pa.Array]()
    if limits.rescore is not None:
        names = table[ID].to_pylist()
        relaxed, features = _relaxed(table, index.bits), code_features(table)
        queries = Queries(names, names, codes, np.full(len(codes), -1), relaxed, features)
        scored = scored_rows(index, queries, np.arange(len(codes)), limits)
        if limits.vectors is None and relaxed is not None:
            put_identical_first_scored(index, relaxed, digests, scored, limits.radius)
        starts, rows, distances = scored.starts, scored.rows, scored.distances
        scores = {"scores": _lists(starts, pa.array(scored.scores))}
        if scored.candidates is not None:
            scores["candidates"] = pa.array(scored.candidates)
        near_count = scored.within_radius
        count = {"tied": scored.tied} if near_count is None else {"within_radius": near_count}
    elif limits.radius is None:
        matches = index.search(codes, limits.k or max(1, len(index)))
        starts = np.arange(len(codes) + 1) * matches.rows.shape[1]
        rows, distances = matches.rows.reshape(-1), matches.distances.reshape(-1)
        put_identical_first(index, codes, digests, starts, rows, distances)
        count = {"tied": matches.tied}
    else:
        near = index.within(codes, limits.radius, limits.k)
        starts, rows, distances = near.starts, near.rows, near.distances
        put_identical_first(index, codes, digests, starts, rows, distances, limits.radius)
        count = {"within_radius": near.within_radius}
    ids = _lists(starts, pa.array(index.ids(rows), pa.string()))
    columns = {"query": table[ID], "ids": ids, "distances": _lists(starts, pa.array(distances))}
    return pa.table(columns | scores | count)


def _relaxed(table: pa.Table, bits: int) -> NDArray[np.float32] | None:
    """Return relaxed codes [q, K]; float16 made some 0, but the code still has their sign."""
    relaxed = relaxed_codes(table).astype(np.float32)
    if not relaxed.shape[1]:
        return None
    # no core.bits: it imports torch
    ones = np.unpackbits(packed_codes(table), axis=1, count=bits, bitorder="little")
    least = np.where(ones, _LEAST_FLOAT16, -_LEAST_FLOAT16).astype(np.float32)
    return np.where(relaxed == 0, least, relaxed)


def _lists(starts: NDArray[np.int64], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _shard(codes: Path, name: str, sha256: str) -> Shard:
    number = int(Path(name).stem.removeprefix("part-"))
    rows, size = pq.read_metadata(codes / name).num_rows, (codes / name).stat().st_size
    return Shard(number, rows, files=(name,), bytes=size, stamps=(sha256,))


def _part_name(shard: Shard) -> str:
    return f"matches-{shard.number:05}.parquet"


def _part(out: str, shard: Shard) -> str:
    return join(out, _part_name(shard))


def _receipt_path(out: str, shard: Shard) -> str:
    return join(out, f"receipts/matches-{shard.number:05}.json")


class _Receipt(NamedTuple):
    """What a finished part of matches is: its SHA-256, bytes and queries; ``own``: of itself."""

    sha256: str
    size: int
    queries: int
    own: tuple[str, int]


def _receipt(out: str, shard: Shard) -> _Receipt | None:
    """Read a part's receipt; None where there is none that can be read."""
    path = _receipt_path(out, shard)
    try:
        data = read_file(path)
        values = parse_json(data, path)
        own = hashlib.sha256(data).hexdigest(), len(data)
        return _Receipt(str(values["sha256"]), int(values["bytes"]), int(values["queries"]), own)
    except (OSError, BadDocument, KeyError, TypeError, ValueError):
        return None


def _require_vectors(source: Manifest, queries: str, rescore: str) -> None:
    name = FEATURES if rescore == FEATURES else RELAXED
    if not source.config.get(name):
        raise SchnRayError(
            f"{queries} has no {name}, which --rescore {rescore} needs: encode the queries with "
            f"--set {name}=true"
        )


def _require_same_model(index: Searchable, source: Manifest, queries: str) -> None:
    if (source.config["bits"], source.made_from["model"]) != (index.bits, index.model):
        raise SchnRayError(
            f"{queries} was encoded by another model than the index, so codes cannot be compared: "
            "encode the queries with the index's model"
        )


@functools.lru_cache(maxsize=1)
def _opened(indexes: tuple[str, ...], versions: tuple[str, ...], where: str | None) -> Searchable:
    opened = [open_index(index) for index in indexes]
    for index, version in zip(opened, versions, strict=True):
        if index.manifest.fingerprint != version:
            raise SchnRayError(
                f"{index.path} was changed while it was searched; remove the output and run the "
                "same command again"
            )
    index_of_all = as_one(opened)
    return index_of_all if where is None else index_of_all.where(where)
