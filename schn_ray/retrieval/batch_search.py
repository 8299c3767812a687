"""Search for whole galleries: a part of codes in, a part of matches out; killed, it goes on.

A directory of kind ``matches`` has a ``matches-*.parquet`` for every part of the queries' codes:
``query`` (id), ``ids`` and ``distances`` (lists, nearest first, equal distances in the order of
ids), and ``tied`` or ``found``, see ``search.Result``. A part appears whole or not at all, and
one that is there is not made again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.directories import resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest, verify_files
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import (
    as_location,
    join,
    kind_at,
    new_file,
    open_file,
    sha256_and_size,
)
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.receipts import ID
from schn_ray.data.shards.rows import Shard
from schn_ray.retrieval.code_files import CODE, PARTS, packed_codes
from schn_ray.retrieval.index.union import Searchable, open_union
from schn_ray.retrieval.search import SearchLimits

_ROWS_AT_ONCE = 4096


def search_gallery(
    indexes: Sequence[Path | str],
    queries: Path | str,
    out: Path | str,
    wanted: SearchLimits,
    map_shards: MapShards = map_locally,
) -> Manifest:
    """Find the nearest of the indexes' rows for every code of a ``codes`` directory.

    Args:
        indexes: one or more, of one model; searched as one.
        queries: codes of the same model.
        out: directory, or URI, for ``matches-*.parquet`` and the manifest.
        wanted: how many, how near.
        map_shards: applies a function to all parts, on whatever machines.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: other models, damaged files, or ``out`` holds something else.
    """
    places, asked = [as_location(path) for path in indexes], as_location(queries)
    copies, codes = [local_copy(path) for path in indexes], local_copy(queries)
    opened, source = open_union(copies), read_manifest(codes, "codes")
    _require_same_model(opened, source, asked)
    config = {"k": wanted.k, "radius": wanted.radius}
    made_from = {
        "indexes": [read_manifest(path, "index").fingerprint for path in copies],
        "queries": source.fingerprint,
    }
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "matches", config, made_from) as draft,
    ):
        mirror.send()
        verify_files(codes, source)
        shards = [_shard(path) for path in sorted(codes.glob(PARTS))]
        left = [shard for shard in shards if not kind_at(_part(mirror.location, shard))]
        work = functools.partial(
            search_part, indexes=places, queries=asked, out=mirror.location, wanted=wanted
        )
        for _ in map_shards(work, left):
            pass  # counted below, where parts of an earlier run are, too
        for path in mirror.local.glob("*.partial"):
            path.unlink()  # of killed workers
        parts = [_part(mirror.location, shard) for shard in shards]
        draft.known |= {Path(part).name: sha256_and_size(part) for part in parts}
        counted = [_rows_of(part) for part in parts]
        if sum(counted) != sum(shard.rows for shard in shards):
            raise SchnRayError(f"{out}: the parts do not answer for all queries; remove it")
        draft.counts |= {"queries": sum(counted), "parts": len(shards), "rows": len(opened)}
    return read_manifest(mirror.local, "matches")


def search_part(
    shard: Shard, indexes: Sequence[str], queries: str, out: str, wanted: SearchLimits
) -> int:
    """Search for the codes of one part and write what was found.

    Returns:
        The part's number.
    """
    place, schema = _part(out, shard), _schema(wanted)
    index = _opened(tuple(indexes))
    try:
        with (
            open_file(join(queries, shard.files[0])) as file,
            pq.ParquetFile(file) as part,
            new_file(place) as beside,
            pq.ParquetWriter(beside, schema) as writer,
        ):
            for batch in part.iter_batches(_ROWS_AT_ONCE, columns=[ID, CODE]):
                table = pa.Table.from_batches([batch])
                writer.write_table(_matches(index, table, wanted).cast(schema))
    except OSError as error:
        raise SchnRayError(
            f"cannot write {place}: {error.strerror or error}. The parts before it stay: make room "
            "and run the same command again"
        ) from error
    return shard.number


def _schema(wanted: SearchLimits) -> pa.Schema:
    counted = "tied" if wanted.radius is None else "found"
    return pa.schema(
        {
            "query": pa.string(),
            "ids": pa.list_(pa.string()),
            "distances": pa.list_(pa.int32()),
            counted: pa.int64(),
        }
    )


def _matches(index: Searchable, table: pa.Table, wanted: SearchLimits) -> pa.Table:
    codes = packed_codes(table)
    if wanted.radius is None:
        found = index.search(codes, wanted.k or len(index))
        starts = np.arange(len(codes) + 1) * found.rows.shape[1]
        rows, distances = found.rows.ravel(), found.distances.ravel()
        counted = {"tied": found.tied}
    else:
        near = index.within(codes, wanted.radius, wanted.k)
        starts, rows, distances = near.starts, near.rows, near.distances
        counted = {"found": near.found}
    ids = _lists(starts, pa.array(index.ids(rows), pa.string()))
    columns = {"query": table[ID], "ids": ids, "distances": _lists(starts, pa.array(distances))}
    return pa.table(columns | counted)


def _lists(starts: NDArray[np.int64], values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _shard(path: Path) -> Shard:
    number = int(path.stem.removeprefix("part-"))
    rows = pq.read_metadata(path).num_rows
    return Shard(number, rows, files=(path.name,), bytes=path.stat().st_size)


def _part(out: str, shard: Shard) -> str:
    return join(out, f"matches-{shard.number:05}.parquet")


def _rows_of(part: str) -> int:
    with open_file(part) as file:
        return int(pq.read_metadata(file).num_rows)


def _require_same_model(index: Searchable, source: Manifest, queries: str) -> None:
    if (source.config["bits"], source.made_from["model"]) != (index.bits, index.model):
        raise SchnRayError(
            f"{queries} was coded by another model than the index; its codes mean something else"
        )


@functools.lru_cache(maxsize=1)
def _opened(indexes: tuple[str, ...]) -> Searchable:
    return open_union(indexes)
