from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.gallery_codes import Codes, draw_codes, draw_ids, make_index, write_codes

from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.retrieval.index import scan
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Flat, Pairs


def brute_force(
    ids: list[str], codes: Codes, query: Codes, k: int
) -> tuple[list[tuple[int, str]], int]:
    """Return (distance, id) of the k nearest by sorting all, and how many tie at the last one."""
    distances = np.bitwise_count(codes ^ query).sum(axis=1).tolist()
    nearest = sorted(zip(distances, ids, strict=True))[:k]
    return nearest, distances.count(nearest[-1][0])


def check_against_brute_force(
    index: Index, ids: list[str], codes: Codes, queries: Codes, k: int
) -> None:
    matches = index.search(queries, k)
    assert matches.rows.shape == matches.distances.shape == (len(queries), min(k, len(ids)))
    assert (matches.rows.dtype, matches.distances.dtype) == (np.int64, np.int32)
    for q, query in enumerate(queries):
        expected, tied = brute_force(ids, codes, query, k)
        got = list(zip(matches.distances[q].tolist(), matches.ids(q), strict=True))
        assert got == expected
        assert matches.tied[q] == tied
        assert matches.uris(q) == [f"file:{i}" for _, i in expected]
        assert [sorted(ids)[row] for row in matches.rows[q]] == matches.ids(q)


@pytest.mark.parametrize("bits", [1, 12, 32, 64, 100])
@pytest.mark.parametrize("distinct", [1, 3, 40, 10_000])
def test_search_equals_brute_force(tmp_path: Path, bits: int, distinct: int) -> None:
    rng = np.random.default_rng([bits, distinct])
    ids, codes = draw_ids(rng, 300), draw_codes(rng, 300, bits, distinct)
    index = make_index(tmp_path, ids, codes, bits)
    assert len(index) == 300
    assert (index.bits, index.model) == (bits, "m0del")
    assert index.unique_codes == len(np.unique(codes, axis=0))
    queries = np.concatenate([codes[:3], draw_codes(rng, 5, bits, 5)])
    for k in (1, 2, 10, 299, 300, 1000):
        check_against_brute_force(index, ids, codes, queries, k)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 60),
    bits=st.integers(1, 70),
    distinct=st.integers(1, 20),
    k=st.integers(1, 70),
)
def test_any_small_problem(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, bits: int, distinct: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    ids, codes = draw_ids(rng, n), draw_codes(rng, n, bits, distinct)
    index = make_index(tmp_path_factory.mktemp("any"), ids, codes, bits, parts=2)
    check_against_brute_force(index, ids, codes, draw_codes(rng, 4, bits, 4), k)


def test_more_queries_than_fit_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ids, codes = draw_ids(rng, 50), draw_codes(rng, 50, 32, 8)
    index = make_index(tmp_path, ids, codes, 32)
    check_against_brute_force(index, ids, codes, draw_codes(rng, 600, 32, 600), 7)


@pytest.mark.slow
def test_codes_without_clusters_are_scanned_by_radius(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    ids = draw_ids(rng, 4000)
    codes, queries = (rng.integers(0, 256, (n, 3)).astype(np.uint8) for n in (4000, 80))
    codes[:, 2] = queries[:, 2] = 0
    queries[-3:, 2] = 255  # 8 bits away from all: too few are within the radius of the others
    index = make_index(tmp_path, ids, codes, 24)
    asked: list[int] = []
    within = Flat.within

    def counted(self: Flat, some: Codes, radii: NDArray[np.int32]) -> Pairs:
        asked.append(len(some))
        return within(self, some, radii)

    monkeypatch.setattr(Flat, "within", counted)
    check_against_brute_force(index, ids, codes, queries, 300)
    assert sum(asked) >= 48  # all but the first block, from which the radius was learned


@pytest.mark.parametrize("bits", [8, 64, 128, 200])
@pytest.mark.parametrize("at_once", [1, 7])
def test_a_scan_of_all_codes_returns_the_nearest(
    bits: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(bits)
    codes, queries = draw_codes(rng, 300, bits, 300), draw_codes(rng, 20, bits, 20)
    expected = np.bitwise_count(queries[:, None] ^ codes).sum(axis=2)
    for k, heap in ((1, 99), (30, 99), (30, 9), (300, 99)):
        monkeypatch.setattr(scan, "_COUNTED_K", heap)  # above and below k
        monkeypatch.setattr(scan, "_COUNTERS", at_once * k * (codes.shape[1] * 8 + 1))
        near = Flat(codes).nearest(queries, k)
        assert np.array_equal(near.distances, np.sort(expected, axis=1)[:, :k])
        assert np.array_equal(np.take_along_axis(expected, near.numbers, axis=1), near.distances)
        assert all(len(set(row)) == k for row in near.numbers.tolist())


def test_the_order_of_rows_and_parts_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    ids, codes = draw_ids(rng, 200), draw_codes(rng, 200, 12, 6)
    shuffled = rng.permutation(200)
    first = make_index(tmp_path / "a", ids, codes, 12)
    second = make_index(tmp_path / "b", [ids[i] for i in shuffled], codes[shuffled], 12, parts=1)
    ours, theirs = first.search(codes[:20], 9), second.search(codes[:20], 9)
    assert [ours.ids(q) for q in range(20)] == [theirs.ids(q) for q in range(20)]
    np.testing.assert_array_equal(ours.distances, theirs.distances)
    files = [dict(read_manifest(tmp_path / n / "index", "index").files) for n in "ab"]
    assert files[0] == files[1]
    assert len(files[0]) == 9


def test_one_mask_over_all_codes_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ids, codes = draw_ids(rng, 200), draw_codes(rng, 200, 64, 30)
    mask = draw_codes(rng, 1, 64, 1)
    plain = make_index(tmp_path / "a", ids, codes, 64).search(codes[:20], 15)
    masked = make_index(tmp_path / "b", ids, codes ^ mask, 64).search(codes[:20] ^ mask, 15)
    np.testing.assert_array_equal(plain.rows, masked.rows)
    np.testing.assert_array_equal(plain.tied, masked.tied)


def test_threads_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    ids, codes = draw_ids(rng, 400), draw_codes(rng, 400, 32, 100)
    index = make_index(tmp_path, ids, codes, 32)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        one = index.search(codes, 10)
        faiss.omp_set_num_threads(3)
        three = index.search(codes, 10)
    finally:
        faiss.omp_set_num_threads(before)
    np.testing.assert_array_equal(one.rows, three.rows)
    np.testing.assert_array_equal(one.distances, three.distances)


def test_codes_that_are_not_contiguous_and_no_codes_at_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    ids, codes = draw_ids(rng, 40), draw_codes(rng, 40, 32, 9)
    index = make_index(tmp_path, ids, codes, 32)
    check_against_brute_force(index, ids, codes, np.asfortranarray(codes[::2]), 5)
    assert index.search(codes[:0], 5).rows.shape == (0, 5)


def small_index(tmp_path: Path, bits: int = 32) -> Path:
    rng = np.random.default_rng(6)
    make_index(tmp_path, draw_ids(rng, 100), draw_codes(rng, 100, bits, 20), bits)
    return tmp_path / "index"


def test_the_same_build_again_does_nothing(tmp_path: Path) -> None:
    out = small_index(tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    with pytest.raises(AlreadyDone):
        write_index(tmp_path / "codes", out)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (np.zeros((1, 8), np.uint8), r"\(1, 8\).*32 bits.*\[n, 4\]"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((1, 4), np.int64), "int64"),
    ],
)
def test_codes_of_another_width_are_refused(tmp_path: Path, codes: Codes, complaint: str) -> None:
    with pytest.raises(SchnRayError, match=complaint):
        open_index(small_index(tmp_path)).search(codes, 1)


def test_padding_bits_must_be_zero(tmp_path: Path) -> None:
    index = open_index(small_index(tmp_path, bits=12))
    with pytest.raises(SchnRayError, match="beyond the 12"):
        index.search(np.array([[0, 16]], np.uint8), 1)
    codes = write_codes(tmp_path / "bad", ["a"], np.array([[0, 16]], np.uint8), 12, parts=1)
    with pytest.raises(SchnRayError, match="beyond the 12"):
        write_index(codes, tmp_path / "refused")


def test_less_than_one_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="k is 0"):
        open_index(small_index(tmp_path)).search(np.zeros((1, 4), np.uint8), 0)


def test_an_id_twice_is_refused_across_parts(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", ["a", "b", "c", "a"], np.zeros((4, 4), np.uint8), 32)
    with pytest.raises(SchnRayError, match="1 rows repeat an id, such as 'a'"):
        write_index(codes, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_no_codes_are_refused(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", [], np.zeros((0, 4), np.uint8), 32)
    with pytest.raises(SchnRayError, match="no codes"):
        write_index(codes, tmp_path / "index")


def write_part(folder: Path, table: pa.Table) -> Path:
    with new_directory(folder, "codes", {"bits": 32}, {"model": "m"}) as draft:
        (draft.path / "data").mkdir()
        pq.write_table(table, draft.path / "data" / "part-0.parquet")
    return folder


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"id": ["a"], "code": pa.array([b"1234"], pa.binary(4))}),
        pa.table({"id": ["a"], "uri": ["u"], "code": pa.array([b"123"], pa.binary(3))}),
        pa.table({"id": ["a"], "uri": ["u"], "code": pa.array([None], pa.binary(4))}),
        pa.table({"id": [None], "uri": ["u"], "code": pa.array([b"1234"], pa.binary(4))}),
    ],
    ids=["no uri", "other width", "no code", "no id"],
)
def test_parts_that_encode_did_not_write_are_refused(tmp_path: Path, table: pa.Table) -> None:
    with pytest.raises(SchnRayError, match="not the codes that encode writes"):
        write_index(write_part(tmp_path / "codes", table), tmp_path / "index")


def test_codes_are_not_an_index(tmp_path: Path) -> None:
    small_index(tmp_path)
    with pytest.raises(SchnRayError, match="is a codes directory"):
        open_index(tmp_path / "codes")
