"""Code any number of images: a shard of the source in, a Parquet part with its receipt out.

A part appears whole, with its receipt in its own metadata, so a job that was stopped codes only
the shards that have no part yet.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.code_files import CODE, code_column, packed_codes
from schn_ray.config import EncodeConfig
from schn_ray.errors import SchnRayError
from schn_ray.hasher import Hasher, load
from schn_ray.images import BadImage, evaluation_view
from schn_ray.manifest import Manifest, read_manifest, resumable_directory
from schn_ray.sources import BadRow, Row, Shard, Source, listing_sha256
from schn_ray.store import MapShards, in_this_process, refuse_too_many, write_quarantine

_RECEIPT = b"schn-ray receipt"


@dataclass(frozen=True)
class Receipt:
    """What became of a shard's rows: coded + quarantined = rows."""

    shard: int
    rows: int
    coded: int
    quarantined: tuple[BadRow, ...]


def encode(
    source: Source,
    model: Path,
    out: Path,
    config: EncodeConfig,
    map_shards: MapShards = in_this_process,
) -> Manifest:
    """Code every image of a source; interrupted, the same call goes on.

    Args:
        source: where the images are.
        model: a finished run or a model directory.
        out: directory for ``part-*.parquet`` (id, uri, code), ``quarantine.parquet`` and the
            manifest.
        config: see there.
        map_shards: applies a function to all shards, on whatever machines.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        TooManyBadRows: more of the rows than allowed could not be coded; they are named.
        SchnRayError: the source has no rows, or ``out`` holds something else.
    """
    shards = source.shards()
    hasher = load(model)
    recorded = config.model_dump(mode="json") | {"bits": hasher.bits}
    recorded["source"].pop("max_bad_share")  # it decides when to stop, not what is written
    made_from = {
        "source": source.location,
        "listing": listing_sha256(shards),
        "model": hasher.fingerprint,
    }
    with resumable_directory(out, "codes", recorded, made_from) as draft:
        receipts = encode_shards(source, shards, model, out, config.batch_size, map_shards)
        quarantined = [row for receipt in receipts for row in receipt.quarantined]
        rows = sum(receipt.rows for receipt in receipts)
        write_quarantine(out, quarantined)
        refuse_too_many(quarantined, rows, config.source.max_bad_share)
        coded = sum(receipt.coded for receipt in receipts)
        draft.counts |= {"rows": rows, "coded": coded, "quarantined": len(quarantined)}
    return read_manifest(out, "codes")


def encode_shards(
    source: Source,
    shards: list[Shard],
    model: Path,
    out: Path,
    batch_size: int,
    map_shards: MapShards = in_this_process,
) -> list[Receipt]:
    """Write the parts that are missing; return all receipts in the order of the shards."""
    out.mkdir(parents=True, exist_ok=True)
    receipts = {shard.number: _read_receipt(part_path(out, shard.number)) for shard in shards}
    missing = [shard for shard in shards if receipts[shard.number] is None]
    function = functools.partial(
        encode_shard, source=source, model=model.resolve(), out=out.resolve(), batch_size=batch_size
    )
    for receipt in map_shards(function, missing):
        receipts[receipt.shard] = receipt
    return [receipt for _, receipt in sorted(receipts.items()) if receipt is not None]


def encode_shard(shard: Shard, source: Source, model: Path, out: Path, batch_size: int) -> Receipt:
    """Code one shard and write its part; run by whoever ``map_shards`` chooses."""
    hasher = _loaded(model)
    bad: list[BadRow] = []
    ids: list[str] = []
    uris: list[str] = []
    codes = [np.zeros((0, -(-hasher.bits // 8)), np.uint8)]
    for rows, views in _view_batches(source, shard, hasher, batch_size, bad):
        ids += [row.id for row in rows]
        uris += [row.uri for row in rows]
        codes.append(hasher.encode_views([views]))
    receipt = Receipt(shard.number, len(ids) + len(bad), len(ids), tuple(bad))
    _write_part(part_path(out, shard.number), ids, uris, np.concatenate(codes), receipt)
    return receipt


def part_path(out: Path, shard: int) -> Path:
    """Return where a shard's codes are written."""
    return out / f"part-{shard:05}.parquet"


def read_codes(out: Path) -> tuple[pa.Table, NDArray[np.uint8]]:
    """Read all parts in order -> (table of id and uri, packed codes [n, ceil(K / 8)]).

    Raises:
        SchnRayError: there is no part.
    """
    parts = sorted(out.glob("part-*.parquet"))
    if not parts:
        raise SchnRayError(f"{out} holds no part-*.parquet")
    table = pa.concat_tables([pq.read_table(part).replace_schema_metadata() for part in parts])
    return table.select(["id", "uri"]), packed_codes(table)


@functools.lru_cache(maxsize=1)
def _loaded(model: Path) -> Hasher:
    return load(model)


def _view_batches(
    source: Source, shard: Shard, hasher: Hasher, batch_size: int, bad: list[BadRow]
) -> Iterator[tuple[list[Row], NDArray[np.uint8]]]:
    rows: list[Row] = []
    views: list[NDArray[np.uint8]] = []
    for row in source.read(shard):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            views.append(evaluation_view(row.image, hasher.spec.preprocessing))
        except BadImage as error:
            bad.append(BadRow(row.id, row.uri, "decode", error.reason))
            continue
        rows.append(row)
        if len(rows) == batch_size:
            yield rows, np.stack(views)
            rows, views = [], []
    if rows:
        yield rows, np.stack(views)


def _write_part(
    path: Path, ids: list[str], uris: list[str], packed: NDArray[np.uint8], receipt: Receipt
) -> None:
    columns = {
        "id": pa.array(ids, pa.string()),
        "uri": pa.array(uris, pa.string()),
        CODE: code_column(packed),
    }
    metadata = {_RECEIPT: json.dumps(asdict(receipt)).encode()}
    beside = path.with_name(path.name + ".partial")
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), beside)
    beside.rename(path)


def _read_receipt(path: Path) -> Receipt | None:
    if not path.is_file():
        return None
    values = json.loads(pq.read_schema(path).metadata[_RECEIPT])
    return Receipt(**values | {"quarantined": tuple(BadRow(**r) for r in values["quarantined"])})
