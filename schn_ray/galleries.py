"""Search for whole galleries: a part of codes in, a part of matches out; killed, it goes on.

A directory of kind ``matches`` has a ``matches-*.parquet`` for every part of the queries' codes:
``query`` (id), ``ids`` and ``distances`` (lists, nearest first, equal distances in the order of
ids), and ``tied`` or ``found``, see ``search.Result``. A part appears whole or not at all, and
one that is there is not made again.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.code_files import CODE, packed_codes
from schn_ray.errors import SchnRayError
from schn_ray.index.together import Searchable, open_together
from schn_ray.manifest import Manifest, read_manifest, resumable_directory, verify_files
from schn_ray.parts import ID, PARTS
from schn_ray.search import Wanted
from schn_ray.sources import Shard
from schn_ray.store import MapShards, in_this_process

_ROWS_AT_ONCE = 4096


def search_gallery(
    indexes: Sequence[Path],
    queries: Path,
    out: Path,
    wanted: Wanted,
    map_shards: MapShards = in_this_process,
) -> Manifest:
    """Find the nearest of the indexes' rows for every code of a ``codes`` directory.

    Args:
        indexes: one or more, of one model; searched as one.
        queries: codes of the same model.
        out: directory for ``matches-*.parquet`` and the manifest.
        wanted: how many, how near.
        map_shards: applies a function to all parts, on whatever machines.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: other models, damaged files, or ``out`` holds something else.
    """
    paths = [path.resolve() for path in indexes]
    opened, source = open_together(paths), read_manifest(queries, "codes")
    _require_same_model(opened, source, queries)
    config = {"k": wanted.k, "radius": wanted.radius}
    made_from = {
        "indexes": [read_manifest(path, "index").fingerprint for path in paths],
        "queries": source.fingerprint,
    }
    with resumable_directory(out, "matches", config, made_from) as draft:
        verify_files(queries, source)
        shards = [_shard(path) for path in sorted(queries.glob(PARTS))]
        left = [shard for shard in shards if not _part(out, shard).exists()]
        work = functools.partial(
            search_part, indexes=paths, queries=queries.resolve(), out=out.resolve(), wanted=wanted
        )
        for _ in map_shards(work, left):
            pass  # counted below, where parts of an earlier run are, too
        for path in out.glob("*.partial"):
            path.unlink()  # of killed workers
        counted = [pq.read_metadata(_part(out, shard)).num_rows for shard in shards]
        if sum(counted) != sum(shard.rows for shard in shards):
            raise SchnRayError(f"{out}: the parts do not answer for all queries; remove it")
        draft.counts |= {"queries": sum(counted), "parts": len(shards), "rows": len(opened)}
    return read_manifest(out, "matches")


def search_part(
    shard: Shard, indexes: Sequence[Path], queries: Path, out: Path, wanted: Wanted
) -> int:
    """Search for the codes of one part and write what was found.

    Returns:
        The part's number.
    """
    path = _part(out, shard)
    index = _opened(tuple(indexes))
    # a name of its own: a worker that was given up may still be at work on the same part
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with pq.ParquetFile(queries / shard.files[0]) as part:
            schema = _schema(wanted)
            with pq.ParquetWriter(beside, schema) as writer:
                for batch in part.iter_batches(_ROWS_AT_ONCE, columns=[ID, CODE]):
                    table = pa.Table.from_batches([batch])
                    writer.write_table(_matches(index, table, wanted).cast(schema))
        beside.rename(path)
    except OSError as error:
        raise SchnRayError(
            f"cannot write {path}: {error.strerror or error}. The parts before it stay: make room "
            "and run the same command again"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return shard.number


def _schema(wanted: Wanted) -> pa.Schema:
    counted = "tied" if wanted.radius is None else "found"
    return pa.schema(
        {
            "query": pa.string(),
            "ids": pa.list_(pa.string()),
            "distances": pa.list_(pa.int32()),
            counted: pa.int64(),
        }
    )


def _matches(index: Searchable, table: pa.Table, wanted: Wanted) -> pa.Table:
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


def _part(out: Path, shard: Shard) -> Path:
    return out / f"matches-{shard.number:05}.parquet"


def _require_same_model(index: Searchable, source: Manifest, queries: Path) -> None:
    if (source.config["bits"], source.made_from["model"]) != (index.bits, index.model):
        raise SchnRayError(
            f"{queries} was coded by another model than the index; its codes mean something else"
        )


@functools.lru_cache(maxsize=1)
def _opened(indexes: tuple[Path, ...]) -> Searchable:
    return open_together(indexes)
