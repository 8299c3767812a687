"""Rows that are equal, by id or by hash: each is found, and nothing else."""

from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schn_ray.data.shards import equal_rows as first_rows_module
from schn_ray.data.shards.equal_rows import as_digests, first_rows, first_with_hash, first_with_id

HASH = sha256(b"an image").digest()
OTHERS = [HASH[:at] + b"?" + HASH[at + 1 :] for at in (0, 9, 17, 31)]


def literally(values: list[object]) -> list[int]:
    return [values.index(value) for value in values]


def chunks_of(values: list[object], kind: pa.DataType) -> pa.ChunkedArray:
    """A column in three chunks, one of them empty, one a slice."""
    whole, half = pa.array(values, kind), len(values) // 2
    return pa.chunked_array([whole[:half], whole[:0], whole[half:]], kind)


@pytest.fixture(params=[1, 2, 1 << 16], autouse=True)
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows_module, "_COMPARED", request.param)


@given(st.lists(st.integers(-5, 5), max_size=40))
@settings(max_examples=100, deadline=None)
def test_numbers(values: list[int]) -> None:
    assert first_rows(np.array(values, np.int64)).tolist() == literally(values)


@given(st.lists(st.sampled_from(["", "a", "b", "ä", "a/b.jpg"]), max_size=12))
@settings(max_examples=50, deadline=None)
def test_ids(ids: list[str]) -> None:
    assert first_with_id(chunks_of(ids, pa.string())).tolist() == literally(ids)


def test_ids_whose_hashes_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows_module, "hash", len, raising=False)
    assert first_with_id(chunks_of(["a", "b", "a"], pa.string())).tolist() == [0, 1, 0]


@given(st.lists(st.sampled_from([HASH, *OTHERS]), max_size=12))
@settings(max_examples=50, deadline=None)
def test_hashes_are_told_apart_by_all_their_bytes(hashes: list[bytes]) -> None:
    assert first_with_hash(chunks_of(hashes, pa.binary(32))).tolist() == literally(hashes)


def test_digests_of_a_slice() -> None:
    digests = [bytes([i]) * 32 for i in range(5)]
    column = pa.array(digests, pa.binary(32)).slice(2)
    assert [digest.tobytes() for digest in as_digests(column)] == digests[2:]
