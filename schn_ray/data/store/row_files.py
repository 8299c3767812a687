"""The files of a store that is being written, here or at a URI: rows, and a receipt for each.

A receipt is written after its rows and has their hash: rows without a receipt do not count, so a
writer may be killed at any moment, and nobody has to read the rows again to know what they are.
Where rows are replaced, their next receipt lies beside the one that is there until both are new;
whoever finds it later sees by the hash which of the two is right.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import (
    is_uri,
    join,
    kind_at,
    names_in,
    new_file,
    open_file,
    read_file,
    remove_file,
    sha256_and_size,
    write_file,
)
from schn_ray.data.shards.receipts import Receipt, UnitReceipt, plain, receipt_of

RECEIPTS = "receipts"
_NEXT = ".next"
ROWS = pa.schema(
    {
        "id": pa.string(),
        "image": pa.large_binary(),
        "labels": pa.list_(pa.string()),
        "sha256": pa.binary(32),
        "split": pa.string(),
        "uri": pa.string(),
        "camera": pa.int32(),
        "scale": pa.float32(),
    }
)


@dataclass(frozen=True)
class Written:
    """A file of rows: what it answers for, its hash and its size in bytes."""

    receipt: Receipt
    sha256: str
    size: int


def rows_name(number: int) -> str:
    """Return the name of a file of rows."""
    return f"rows-{number:05}.arrow"


def receipt_name(number: int) -> str:
    """Return the name of its receipt, below the store."""
    return f"{RECEIPTS}/rows-{number:05}.json"


def _next_receipt_name(number: int) -> str:
    return receipt_name(number) + _NEXT


def write_rows(
    store: str, number: int, batches: Iterable[pa.RecordBatch], done: Sequence[UnitReceipt]
) -> None:
    """Write rows as they come, and then their receipt; older ones are replaced.

    Args:
        store: where.
        number: of the file.
        batches: of rows.
        done: what they answer for; complete when all batches were taken.

    Raises:
        SchnRayError: the disk is full, or the place may not be written.
    """
    name = rows_name(number)
    try:
        with new_file(join(store, name)) as path:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROWS) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            written = Written(Receipt(number, tuple(done)), sha256_file(path), path.stat().st_size)
            if replaced := kind_at(join(store, receipt_name(number))) is not None:
                write_file(join(store, _next_receipt_name(number)), _as_json(written))
        write_receipt(store, written)
        if replaced:
            remove_file(join(store, _next_receipt_name(number)))
    except OSError as error:
        raise SchnRayError(
            f"cannot write {join(store, name)}: {error.strerror or error}. The rows before it "
            "stay: make room and run the same command again"
        ) from error


def write_receipt(store: str, written: Written) -> None:
    """Write the receipt of rows that are there."""
    write_file(join(store, receipt_name(written.receipt.number)), _as_json(written))


def _as_json(written: Written) -> bytes:
    return json.dumps([written.sha256, written.size, *plain(written.receipt)]).encode()


def read_receipts(store: str) -> dict[int, Written]:
    """Read the receipts of all rows that are there, by number.

    Raises:
        SchnRayError: a damaged receipt.
    """
    there, names = names_in(store), sorted(names_in(join(store, RECEIPTS)))
    for name in names:
        if name.endswith(_NEXT):
            _settle(store, name.removesuffix(_NEXT))
    names = [name for name in names if name.endswith(".json")]
    read = [_read_receipt(join(store, f"{RECEIPTS}/{name}")) for name in names]
    return {w.receipt.number: w for w in read if rows_name(w.receipt.number) in there}


def receipt_for(store: str, number: int) -> Receipt:
    """Read the receipt of one file of rows."""
    if kind_at(join(store, _next_receipt_name(number))):
        _settle(store, posixpath.basename(receipt_name(number)))
    return _read_receipt(join(store, receipt_name(number))).receipt


def _settle(store: str, name: str) -> None:
    """Of rows that somebody was replacing, keep the receipt that is theirs."""
    place = join(store, f"{RECEIPTS}/{name}")
    following = _read_receipt(place + _NEXT)
    rows = join(store, rows_name(following.receipt.number))
    if kind_at(rows) and sha256_and_size(rows) == (following.sha256, following.size):
        write_receipt(store, following)
    remove_file(place + _NEXT)


def _read_receipt(place: str) -> Written:
    try:
        sha256, size, *values = json.loads(read_file(place))
        return Written(receipt_of(values), sha256, size)
    except (ValueError, TypeError) as error:
        raise SchnRayError(
            f"{place} is damaged ({error}); remove it and run the same command again: its rows "
            "are made again"
        ) from error


def remove_rows(store: str, numbers: Iterable[int]) -> None:
    """Remove rows of which nothing is left, and what killed processes left of others."""
    for number in numbers:
        remove_file(join(store, rows_name(number)))
    rows = {name.removesuffix(".arrow") for name in names_in(store) if name.endswith(".arrow")}
    found = names_in(join(store, RECEIPTS))
    receipts = {name.removesuffix(".json") for name in found if name.endswith(".json")}
    for alone in rows ^ receipts:
        remove_file(join(store, f"{alone}.arrow"))
        remove_file(join(store, f"{RECEIPTS}/{alone}.json"))
    for folder in ("", RECEIPTS):
        place = join(store, folder) if folder else store
        for name in names_in(place) | _hidden(place):
            if name.endswith(".partial"):
                remove_file(join(place, name))


def read_rows(store: str, number: int, columns: list[str] | None = None) -> pa.Table:
    """Read a file of rows, mapped where it is here; of one at a URI only the columns wanted.

    Raises:
        SchnRayError: it is not there, or damaged.
    """
    place = join(store, rows_name(number))
    wanted = None if columns is None else [ROWS.get_field_index(name) for name in columns]
    try:
        if not is_uri(place):
            table = pa.ipc.open_file(pa.memory_map(place)).read_all()
            return table if columns is None else table.select(columns)
        with open_file(place) as file:
            options = pa.ipc.IpcReadOptions(included_fields=wanted)
            return pa.ipc.open_file(file, options=options).read_all()
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{place} is damaged ({error}); remove it and run it again") from error


def _hidden(place: str) -> frozenset[str]:
    found = os.listdir(place) if not is_uri(place) and os.path.isdir(place) else []
    return frozenset(name for name in found if name.startswith("."))
