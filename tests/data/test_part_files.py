"""Part files: written with their receipts; whose error it is when something fails meanwhile."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schn_ray.core.atomic_files import CannotWrite
from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.part_files import PartFiles, take_rows
from schn_ray.data.shards.receipts import UnitReceipt, receipt_from_bytes, receipt_to_bytes
from schn_ray.data.shards.rows import BadRow, Unit
from schn_ray.retrieval.code_files import CodeFiles

UNITS = (
    UnitReceipt(Unit("a.png", 0, 1, "1-1"), 1),
    UnitReceipt(Unit("b.parquet", 7, 2, ""), 1, (BadRow("x", "b.parquet#8", "read", "é"),)),
)


def batch(*ids: str) -> pa.RecordBatch:
    return pa.record_batch({"id": list(ids), "uri": list(ids)})


def test_a_receipt_is_read_back(tmp_path: Path) -> None:
    parts = PartFiles(str(tmp_path), CodeFiles())
    receipt = parts.write(3, [batch("a"), batch("b")], UNITS)
    assert (parts.numbers(), parts.read_receipt(3)) == ([3], receipt)
    assert (receipt.units, receipt.written, len(receipt.quarantined)) == (UNITS, 2, 1)
    assert receipt_from_bytes(receipt_to_bytes(receipt)) == receipt
    assert parts.read_strings(3, "id") == ["a", "b"]
    assert {path.name for path in tmp_path.rglob("*.*")} == {
        "part-00003.parquet",
        "part-00003.receipt",
    }


@pytest.mark.parametrize("damage", [b"", b"[1]", b"\x1f\x8b\x08\x00half"])
def test_a_damaged_receipt_is_named(tmp_path: Path, damage: bytes) -> None:
    parts = PartFiles(str(tmp_path), CodeFiles())
    parts.write(0, [batch("a")], UNITS[:1])
    (tmp_path / "receipts" / "part-00000.receipt").write_bytes(damage)
    with pytest.raises(SchnRayError, match=r"part-00000\.receipt is damaged .* remove this file"):
        parts.read_receipt(0)


def test_an_error_of_the_source_is_not_one_of_the_disk(tmp_path: Path) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield batch("a")
        raise OSError(errno.ETIMEDOUT, "the bucket does not answer")

    with pytest.raises(OSError, match="the bucket does not answer"):
        PartFiles(str(tmp_path), CodeFiles()).write(0, rows(), UNITS[:1])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_rows_are_taken_in_batches_of_a_bounded_size() -> None:
    table = pa.table({"id": [str(i) for i in range(3000)]})
    order = np.random.default_rng(0).permutation(2500)
    batches = list(take_rows(table, order))
    assert max(batch.num_rows for batch in batches) <= 1024
    assert pa.Table.from_batches(batches)["id"].to_pylist() == [str(i) for i in order]
    assert [batch.num_rows for batch in take_rows(table, order[:0])] == [0]


@pytest.mark.parametrize("name", ["part-00003.parquet", "part-00003.receipt"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_what_cannot_be_written_is_named(
    name: str, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_anything = io.open

    def full(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" in mode and name in str(file):
            raise OSError(error, os.strerror(error), str(file))
        return open_anything(file, mode, *arguments, **options)

    class Full(CodeFiles):
        def write(self, path: Path, batches: Any) -> None:
            full(path, "w").close()
            super().write(path, batches)

    monkeypatch.setattr("builtins.open", full)
    advice = "Make room" if error == errno.ENOSPC else "Name a directory that can be written"
    expected = rf"cannot write .*/{name}(\.next)?: {os.strerror(error)}\. {advice} and run the same"
    with pytest.raises(CannotWrite, match=expected):
        PartFiles(str(tmp_path), Full()).write(3, [batch("a"), batch("b")], UNITS)
    assert not list(tmp_path.rglob("*.partial"))
