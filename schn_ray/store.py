"""The training store: a source's good rows as Arrow files, mapped and read at random by row.

A directory with ``rows-00000.arrow`` ... (one a shard: id, image, labels, sha256, split, uri),
``classes.json``, ``split.parquet`` (role, row, id), ``quarantine.parquet`` (id, uri, stage,
reason) and the manifest. A row's number is its place over all Arrow files in turn.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.config import PrepareConfig, SourceConfig
from schn_ray.errors import SchnRayError, TooManyBadRows
from schn_ray.images import BadImage, decode
from schn_ray.manifest import Manifest, new_directory, read_manifest, write_json
from schn_ray.protocols import ROLES, Rows, Split, find_protocol, split
from schn_ray.sources import BadRow, Row, Shard, Source, listing_sha256
from schn_ray.sources.stored import ROW_FILES, map_file, map_rows

CLASSES, SPLIT, QUARANTINE = "classes.json", "split.parquet", "quarantine.parquet"

_ROWS = pa.schema(
    {
        "id": pa.string(),
        "image": pa.large_binary(),
        "labels": pa.list_(pa.string()),
        "sha256": pa.binary(32),
        "split": pa.string(),
        "uri": pa.string(),
    }
)
_BAD_ROWS = pa.schema(dict.fromkeys(("id", "uri", "stage", "reason"), pa.string()))
_SPLIT = pa.schema({"role": pa.string(), "row": pa.int64(), "id": pa.string()})


class Numbered(Protocol):
    """A piece of work: a shard of a source, a part of a gallery ..."""

    @property
    def number(self) -> int:
        """Its place among the others."""
        ...

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...


T = TypeVar("T")
Piece = TypeVar("Piece", bound=Numbered)


class MapShards(Protocol):
    """Applies a picklable function to every shard, here or elsewhere; results in any order."""

    def __call__(self, function: Callable[[Piece], T], shards: list[Piece], /) -> Iterable[T]:
        """Return the function's result for every shard."""
        ...


def in_this_process(function: Callable[[Piece], T], shards: list[Piece]) -> Iterable[T]:
    """Do one shard after the other: the simplest ``MapShards``."""
    return map(function, shards)


@dataclass(frozen=True)
class Receipt:
    """What became of one shard: its rows are in the file of that number, but for these."""

    number: int
    quarantined: tuple[BadRow, ...]


class Store:
    """A finished store, opened for reading; see ``open_store``.

    Pickles as its path, and is mapped again where it arrives.

    Attributes:
        path: its directory.
        manifest: what made it.
        classes: the vocabulary; column c of ``labels`` is ``classes[c]``.
        ids: [n] pyarrow strings, unique.
        labels: [n, C] multi-hot uint8; rows without a label are empty.
        split: role -> rows, ascending.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, "store")
        self.classes: tuple[str, ...] = tuple(json.loads(_read(path / CLASSES)))
        self._table = map_rows(path)
        self.ids: pa.Array = self._table["id"].combine_chunks()
        self.labels = multi_hot(self._table["labels"], self.classes)
        self.split = _read_split(path / SPLIT)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __reduce__(self) -> tuple[Callable[[Path], Store], tuple[Path]]:
        return open_store, (self.path,)

    def image(self, row: int) -> bytes:
        """Return the encoded image of one row."""
        return bytes(self._table["image"][row].as_py())

    def uri(self, row: int) -> str:
        """Return where one row came from; ``schn_ray.sources.fetch`` reads it."""
        return str(self._table["uri"][row].as_py())

    def rows(self, role: str) -> Rows:
        """Return the rows of a role: ``train``, ``validation``, ``query`` or ``gallery``."""
        return self.split[role]

    def sha256(self, rows: Rows) -> NDArray[np.void]:
        """Return the SHA-256 of these rows' encoded images: [m], 32 bytes each."""
        return _digests(self._table["sha256"].take(pa.array(rows)))


def open_store(path: Path) -> Store:
    """Open a finished store; images are mapped, and read when they are asked for.

    Raises:
        SchnRayError: no finished store there, or a damaged one.
    """
    return Store(Path(path).absolute())


def prepare(
    source: Source, config: PrepareConfig, out: Path, map_shards: MapShards = in_this_process
) -> Manifest:
    """Write a store: every image decoded once, bad rows put aside, the split drawn.

    Args:
        source: where the rows come from.
        config: what is bad, which protocol, which seed.
        out: the directory to write; it appears when all is done.
        map_shards: does the work on whatever machines; they write beside ``out``.

    Returns:
        The manifest. Its counts: ``rows_read`` = ``rows`` (stored) + ``quarantined``.

    Raises:
        AlreadyDone: this very store exists.
        SchnRayError: ``out`` holds something else, or these rows do not make the split.
        TooManyBadRows: more than ``max_bad_share`` of the rows are bad; the first are named.
    """
    find_protocol(config.protocol)  # a typing mistake should not show after hours
    out = Path(out).absolute()
    shards = source.shards()
    made_from = {"source": f"{source.kind}:{source.location}", "listing": listing_sha256(shards)}
    with new_directory(out, "store", config.model_dump(mode="json"), made_from) as draft:
        work = functools.partial(
            store_shard, source=source, config=config.source, directory=draft.path
        )
        receipts = sorted(map_shards(work, shards), key=lambda receipt: receipt.number)
        bad_rows = [row for receipt in receipts for row in receipt.quarantined]
        bad_rows += _set_duplicates_aside(draft.path)
        rows_read = sum(shard.rows for shard in shards)
        refuse_too_many(bad_rows, rows_read, config.source.max_bad_share)
        _check_sum(rows_read, map_rows(draft.path).num_rows, len(bad_rows))
        write_quarantine(draft.path, bad_rows)
        draft.counts |= {"rows_read": rows_read, "quarantined": len(bad_rows)}
        draft.counts |= _describe_and_split(draft.path, config)
    return read_manifest(out, "store")


def store_shard(shard: Shard, source: Source, config: SourceConfig, directory: Path) -> Receipt:
    """Decode and write one shard's rows; what does not decode goes into the receipt."""
    columns: dict[str, list[Any]] = {name: [] for name in _ROWS.names}
    bad_rows = []
    for read in source.read(shard):
        row = _decoded(read, config.max_pixels)
        if isinstance(row, BadRow):
            bad_rows.append(row)
            continue
        digest = hashlib.sha256(row.image).digest()
        values = (row.id, row.image, sorted(row.labels), digest, row.split, row.uri)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    _write_rows(pa.table(columns, _ROWS), directory / f"rows-{shard.number:05}.arrow")
    return Receipt(shard.number, tuple(bad_rows))


def refuse_too_many(bad_rows: list[BadRow], rows: int, allowed: float) -> None:
    """Stop where a larger share of the rows is bad than allowed.

    Raises:
        TooManyBadRows: with the count, the share and the first few.
    """
    if len(bad_rows) <= allowed * rows:
        return
    named = "\n".join(f"  {row.id} ({row.uri}): {row.reason}" for row in bad_rows[:5])
    more = f"\n  and {len(bad_rows) - 5:,} more" if len(bad_rows) > 5 else ""
    raise TooManyBadRows(
        f"{len(bad_rows):,} of {rows:,} rows are bad, more than max_bad_share = {allowed:g} "
        f"allows:\n{named}{more}\n'schn-ray check' names them all: mend or remove them, or allow "
        "more with --set source.max_bad_share=0.2"
    )


def write_quarantine(directory: Path, bad_rows: list[BadRow]) -> None:
    """Write the rows that were put aside, and why: ``quarantine.parquet``, also where empty."""
    table = pa.Table.from_pylist([asdict(row) for row in bad_rows], _BAD_ROWS)
    pq.write_table(table, directory / QUARANTINE)


def vocabulary(labels: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the distinct labels of rows, sorted as people count: ``10`` after ``9``.

    >>> vocabulary(pa.chunked_array([[["b10", "b9"], [], ["b9", "a"]]]))
    ('a', 'b9', 'b10')
    """
    return tuple(sorted(pc.unique(pc.list_flatten(labels)).to_pylist(), key=_as_people_count))


def multi_hot(labels: pa.ChunkedArray, classes: Sequence[str]) -> csr_array[Any]:
    """Return rows' labels as a matrix [n, C] of 0 and 1, uint8.

    >>> multi_hot(pa.chunked_array([[["b", "a"], [], ["b"]]]), ["a", "b"]).toarray().tolist()
    [[1, 1], [0, 0], [0, 1]]
    """
    vocabulary = pa.array(classes, pa.string())
    columns = pc.index_in(pc.list_flatten(labels), value_set=vocabulary).to_numpy()
    ends = np.cumsum(pc.list_value_length(labels).to_numpy(), dtype=np.int64)
    starts = np.concatenate([[0], ends])
    ones = np.ones(len(columns), np.uint8)
    matrix = csr_array((ones, columns, starts), shape=(len(ends), len(classes)))
    matrix.sort_indices()
    return matrix


def _decoded(row: Row | BadRow, max_pixels: int) -> Row | BadRow:
    if isinstance(row, Row):
        try:
            decode(row.image, max_pixels)
        except BadImage as error:
            return BadRow(row.id, row.uri, "decode", error.reason)
    return row


def _set_duplicates_aside(directory: Path) -> list[BadRow]:
    """Remove rows whose id an earlier row has; they are known only when all are written."""
    table = map_rows(directory)
    table = table.select(["id", "uri"]).append_column("row", pa.array(np.arange(len(table))))
    first = table.group_by("id").aggregate([("row", "min")])
    if len(first) == len(table):
        return []
    keep = np.zeros(len(table), bool)
    keep[first["row_min"].to_numpy()] = True
    _rewrite(directory, keep)
    repeated = table.filter(pa.array(~keep))
    firsts = first.filter(pc.is_in(first["id"], value_set=repeated["id"].combine_chunks()))
    first_row = dict(zip(firsts["id"].to_pylist(), firsts["row_min"].to_pylist(), strict=True))
    return [
        BadRow(row["id"], row["uri"], "id", f"same id as {table['uri'][first_row[row['id']]]}")
        for row in repeated.to_pylist()
    ]


def _rewrite(directory: Path, keep: NDArray[np.bool_]) -> None:
    start = 0
    for path in sorted(directory.glob(ROW_FILES)):
        table = map_file(path)
        kept = keep[start : start + len(table)]
        start += len(table)
        if not kept.all():
            _write_rows(table.filter(pa.array(kept)), path)


def _describe_and_split(directory: Path, config: PrepareConfig) -> dict[str, Any]:
    """Write the vocabulary and the split of the rows in a directory; return what was counted."""
    table = map_rows(directory)
    classes = vocabulary(table["labels"])
    labels = multi_hot(table["labels"], classes)
    write_json(directory / CLASSES, classes)
    roles = split(labels, classes, table["split"].to_numpy(), config)
    _write_split(directory / SPLIT, roles, table["id"].combine_chunks())
    return {
        "rows": len(table),
        "classes": len(classes),
        "label_sets": pc.count_distinct(pc.binary_join(table["labels"], "\0")).as_py(),
        "unlabelled": int((np.diff(labels.indptr) == 0).sum()),
        "repeated_images": len(table) - len(np.unique(_digests(table["sha256"]))),
        **{role: len(rows) for role, rows in roles.items()},
    }


def _check_sum(listed: int, stored: int, quarantined: int) -> None:
    if stored + quarantined != listed:
        raise SchnRayError(
            f"{listed:,} rows were listed, but {stored:,} stored and {quarantined:,} put aside: "
            "the source changed meanwhile; run it again"
        )


def _write_rows(table: pa.Table, path: Path) -> None:
    beside = path.with_name(path.name + ".partial")  # the old file may be mapped
    with pa.OSFile(str(beside), "wb") as file, pa.ipc.new_file(file, _ROWS) as writer:
        writer.write_table(table)
    beside.rename(path)


def _write_split(path: Path, roles: Split, ids: pa.Array) -> None:
    rows = pa.array(np.concatenate(list(roles.values())))
    names = np.repeat(list(roles), [len(part) for part in roles.values()])
    pq.write_table(pa.table([pa.array(names), rows, ids.take(rows)], _SPLIT), path)


def _read_split(path: Path) -> Split:
    try:
        table = pq.read_table(path, columns=["role", "row"])
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the store again") from error
    rows = table["row"].to_numpy()
    return {role: rows[pc.equal(table["role"], role).to_numpy()] for role in ROLES}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise SchnRayError(f"{path} cannot be read; make the store again") from error


def _digests(column: pa.ChunkedArray) -> NDArray[np.void]:
    values = column.combine_chunks()
    data = np.frombuffer(values.buffers()[1], "V32")
    return data[values.offset : values.offset + len(values)]


def _as_people_count(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Key of a name: its runs of digits compare as numbers, however long."""
    parts: list[str | tuple[int, str]] = list(re.split("([0-9]+)", name))
    for i in range(1, len(parts), 2):
        digits = str(parts[i]).lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, name
