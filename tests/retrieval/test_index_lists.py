"""Searches through lists, radii, several indexes at once: all against sorting everything."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gallery_codes import Codes, draw_clustered, draw_codes, draw_ids, make_index

from schn_ray.core.errors import SchnRayError, UnknownId
from schn_ray.retrieval.index import inverted_lists as training
from schn_ray.retrieval.index import scan
from schn_ray.retrieval.index.index import Index
from schn_ray.retrieval.index.union import IndexUnion, Searchable, open_union

ROWS = 4000


@pytest.fixture(autouse=True)
def lists_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FEWEST", 300)


def ranking(ids: list[str], codes: Codes, query: Codes) -> list[tuple[int, str]]:
    distances = np.bitwise_count(codes ^ query).sum(axis=1).tolist()
    return sorted(zip(distances, ids, strict=True))


def check(index: Searchable, ids: list[str], codes: Codes, queries: Codes, k: int) -> None:
    found = index.search(queries, k)
    for q, query in enumerate(queries):
        expected = ranking(ids, codes, query)
        last = expected[min(k, len(ids)) - 1][0]
        got = list(zip(found.distances[q].tolist(), found.ids(q), strict=True))
        assert got == expected[:k]
        assert found.tied[q] == sum(d == last for d, _ in expected)
    assert found.uris(0) == [f"file:{id}" for id in found.ids(0)]


def check_within(
    index: Searchable, ids: list[str], codes: Codes, queries: Codes, radius: int, most: int | None
) -> None:
    found = index.within(queries, radius, most)
    assert len(found.starts) == len(queries) + 1
    for q, query in enumerate(queries):
        expected = [pair for pair in ranking(ids, codes, query) if pair[0] <= radius]
        assert found.within_radius[q] == len(expected)
        distances = found.rows_of(q)[1].tolist()
        assert list(zip(distances, found.ids(q), strict=True)) == expected[:most]
    assert found.uris(0) == [f"file:{id}" for id in found.ids(0)]


def clustered(bits: int, seed: int = 0) -> tuple[list[str], Codes, Codes]:
    rng = np.random.default_rng([bits, seed])
    codes = draw_clustered(rng, ROWS + 25, bits)
    far = draw_codes(rng, 10, bits, 10)  # queries that no list is near to
    return draw_ids(rng, ROWS), codes[:ROWS], np.concatenate([codes[ROWS:], codes[:5], far])[::2]


@pytest.mark.parametrize("bits", [30, 64, 100, 128])
def test_lists_answer_as_sorting_does(tmp_path: Path, bits: int) -> None:
    ids, codes, queries = clustered(bits)
    index = make_index(tmp_path, ids, codes, bits)
    assert index.info()["scan"] == "lists"
    for k in (1, 10, 300, 2000):
        check(index, ids, codes, queries, k)
    for radius in (0, 3, bits // 3, bits + 5):
        for most in (None, 1, 30):
            check_within(index, ids, codes, queries[::4], radius, most)


def test_a_wrong_radius_would_be_seen(tmp_path: Path) -> None:
    """The certificate rests on the radii: with smaller ones, rows are missed."""
    ids, codes, queries = clustered(64)
    index = make_index(tmp_path, ids, codes, 64)
    assert isinstance(index._scan, scan.Lists)
    index._scan.radii = index._scan.radii * 0
    with pytest.raises((AssertionError, ValueError)):
        check(index, ids, codes, queries, 10)


def test_every_list_holds_no_code_beyond_its_radius(tmp_path: Path) -> None:
    ids, codes, _ = clustered(64)
    lists = make_index(tmp_path, ids, codes, 64)._scan
    assert isinstance(lists, scan.Lists)
    distances = scan.hamming(np.unique(codes, axis=0), lists.centroids)
    nearest = distances.argmin(axis=1)
    for number, radius in enumerate(lists.radii):
        assert distances[nearest == number, number].max(initial=0) == radius


def test_random_codes_get_no_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ids, codes = draw_ids(rng, ROWS), draw_codes(rng, ROWS, 64, ROWS)
    codes = rng.integers(0, 256, codes.shape, np.uint8)
    index = make_index(tmp_path, ids, codes, 64)
    assert index.info()["scan"] == "all distinct codes"
    check(index, ids, codes, draw_codes(rng, 20, 64, 20), 10)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    bits=st.integers(20, 80),
    centres=st.integers(1, 30),
    flips=st.floats(0.01, 0.3),
    k=st.integers(1, 60),
    radius=st.integers(0, 40),
)
def test_any_clustered_problem(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    bits: int,
    centres: int,
    flips: float,
    k: int,
    radius: int,
) -> None:
    rng = np.random.default_rng(seed)
    codes = draw_clustered(rng, 604, bits, centres, flips)
    ids = draw_ids(rng, 600)
    index = make_index(tmp_path_factory.mktemp("any"), ids, codes[:600], bits)
    check(index, ids, codes[:600], codes[600:], k)
    check_within(index, ids, codes[:600], codes[600:], radius, k)


def test_many_queries_learn_how_much_to_ask_for(tmp_path: Path) -> None:
    ids, codes, _ = clustered(64)
    index = make_index(tmp_path, ids, codes, 64)
    queries = draw_clustered(np.random.default_rng(3), 3000, 64)
    at_once = index.search(queries, 20)
    for start in (0, 1024, 2500):
        alone = index.search(queries[start : start + 1], 20)
        np.testing.assert_array_equal(alone.rows[0], at_once.rows[start])
        assert alone.tied[0] == at_once.tied[start]


def split(tmp_path: Path, ids: list[str], codes: Codes, bits: int, shares: list[int]) -> IndexUnion:
    cuts = np.cumsum([0, *shares])
    order = np.random.default_rng(0).permutation(cuts[-1])
    indexes: list[Index] = []
    for number, (low, high) in enumerate(itertools.pairwise(cuts)):
        rows = order[low:high]
        folder = tmp_path / str(number)
        indexes.append(make_index(folder, [ids[r] for r in rows], codes[rows], bits))
    return IndexUnion(indexes)


@pytest.mark.parametrize("bits", [8, 32])
def test_several_indexes_answer_as_one(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(bits)
    ids, codes = draw_ids(rng, 700), draw_clustered(rng, 700, bits, 5)
    together = split(tmp_path, ids, codes, bits, [600, 97, 3])
    assert len(together) == 700
    for k in (1, 5, 120, 700, 900):
        check(together, ids, codes, codes[:20], k)
    for radius, most in ((0, None), (2, 4), (bits, None), (3, 200)):
        check_within(together, ids, codes, codes[:20], radius, most)
    rows = np.array([together.find(id) for id in ids[:50]])
    assert together.ids(rows) == ids[:50]
    np.testing.assert_array_equal(together.codes(rows), codes[:50])
    with pytest.raises(UnknownId, match="'none' is not an id"):
        together.find("none")


def test_indexes_of_other_models_are_not_searched_as_one(tmp_path: Path) -> None:
    make_index(tmp_path / "a", ["a"], np.zeros((1, 4), np.uint8), 32, parts=1)
    make_index(tmp_path / "b", ["b"], np.zeros((1, 8), np.uint8), 64, parts=1)
    with pytest.raises(SchnRayError, match="different models"):
        open_union([tmp_path / "a" / "index", tmp_path / "b" / "index"])
