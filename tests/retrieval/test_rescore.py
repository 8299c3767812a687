"""Searches ordered by score: all against the scores of all rows."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.gallery_codes import Codes, draw_clustered, draw_codes, draw_ids, make_index

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index import inverted_lists, scores
from schn_ray.retrieval.index.build import rewrite_index
from schn_ray.retrieval.index.index import open_index
from schn_ray.retrieval.index.union import IndexUnion, Searchable

Floats = NDArray[np.float32]
KS = (1, 10, 1000)


@pytest.fixture
def lists_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_lists, "FEWEST", 100)
    monkeypatch.setattr(inverted_lists, "_MOST_LOOKED_AT", 9)


def signs(codes: Codes, bits: int) -> NDArray[np.float64]:
    return np.unpackbits(codes, axis=1, count=bits, bitorder="little") * 2.0 - 1


def near_codes(rng: np.random.Generator, codes: Codes, bits: int, kind: str) -> Floats:
    """Draw what a network may give for images like the rows of these codes."""
    noisy = signs(codes, bits) + rng.normal(0, 0.7, (len(codes), bits))
    if kind == "normal":
        return noisy.astype(np.float32)
    if kind == "saturated":  # a tanh of large numbers is 1 in most bits: many equal scores
        return np.tanh(20 * noisy).astype(np.float32)
    return (np.round(4 * noisy) / 4).astype(np.float32)  # a grid: zeros, and even more ties


def check(
    index: Searchable,
    ids: list[str],
    codes: Codes,
    relaxed: Floats,
    k: int | None,
    radius: int | None = None,
) -> None:
    bits = relaxed.shape[1]
    found = index.scored(relaxed, k, radius)
    table = signs(codes, bits)
    for query, q in enumerate(relaxed.astype(np.float64)):
        # exact up to 1e-12: sums of up to 512 float32
        of_rows = np.round(table @ q, 9)
        distances = (table != np.where(q >= 0, 1, -1)).sum(axis=1)
        near = np.flatnonzero(distances <= (bits if radius is None else radius))
        expected = sorted((-of_rows[i], ids[i], distances[i]) for i in near)
        got = found.rows_of(query)
        assert found.ids(query) == [id for _, id, _ in expected[:k]]
        np.testing.assert_allclose(got[1], [-s for s, _, _ in expected[:k]], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(got[2], [d for _, _, d in expected[:k]])
        last = expected[:k][-1][0] if expected else None
        assert found.tied[query] == sum(s == last for s, _, _ in expected)
        if radius is not None:
            assert found.within_radius is not None
            assert found.within_radius[query] == len(expected)


def drawn(bits: int, kind: str, rows: int = 1500) -> tuple[list[str], Codes, Floats]:
    rng = np.random.default_rng([bits, len(kind)])
    codes = draw_clustered(rng, rows, bits, 12)
    asked = np.concatenate(
        [codes[:4], draw_clustered(rng, 4, bits, 12), draw_codes(rng, 2, bits, 2)]
    )
    return draw_ids(rng, rows), codes, near_codes(rng, asked, bits, kind)


@pytest.mark.parametrize("kind", ["normal", "saturated", "grid"])
@pytest.mark.parametrize("bits", [7, 32, 64, 100])
def test_lists_answer_as_all_scores_do(
    tmp_path: Path, lists_for_few: None, bits: int, kind: str
) -> None:
    ids, codes, relaxed = drawn(bits, kind)
    index = make_index(tmp_path, ids, codes, bits)
    assert (index.info()["scan"] == "lists") == (bits > 7)  # 7 bits have too few codes
    for k in KS:
        check(index, ids, codes, relaxed, k)
    check(index, ids, codes, relaxed, 5, bits // 8)
    check(index, ids, codes, relaxed, None, bits // 8)


@pytest.mark.parametrize("bits", [7, 64, 512])
def test_a_scan_of_all_codes_answers_as_all_scores_do(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes, ids = draw_codes(rng, 1200, bits, 900), draw_ids(rng, 1200)
    index = make_index(tmp_path, ids, codes, bits)
    assert index.info()["scan"] == "all distinct codes"
    relaxed = np.concatenate(
        [rng.normal(size=(4, bits)), near_codes(rng, codes[:4], bits, "grid"), np.zeros((1, bits))]
    ).astype(np.float32)
    for k in (*KS, 1300):
        check(index, ids, codes, relaxed, k)


def test_parts_and_removed_rows(tmp_path: Path, lists_for_few: None) -> None:
    ids, codes, relaxed = drawn(64, "grid")
    parts = [slice(0, 700), slice(700, 1490), slice(1490, 1500)]
    indexes = [make_index(tmp_path / str(p.start), ids[p], codes[p], 64) for p in parts]
    for k in KS:
        check(IndexUnion(indexes), ids, codes, relaxed, k)
    check(IndexUnion(indexes), ids, codes, relaxed, 20, 9)
    rewrite_index(tmp_path / "0" / "index", remove=ids[:350])
    check(open_index(tmp_path / "0" / "index"), ids[350:700], codes[350:700], relaxed, 10)


def test_a_bound_that_promises_too_much_would_be_seen(
    tmp_path: Path, lists_for_few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, codes, relaxed = drawn(64, "normal")
    index = make_index(tmp_path, ids, codes, 64)
    least = scores.Weights.least
    monkeypatch.setattr(scores.Weights, "least", lambda self, bits: 3 * least(self, bits))
    with pytest.raises(AssertionError):
        check(index, ids, codes, relaxed, 10)


def test_codes_that_float32_left_out_would_be_seen(
    tmp_path: Path, lists_for_few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, codes, relaxed = drawn(32, "saturated")
    index = make_index(tmp_path, ids, codes, 32)
    complete = np.full(len(relaxed), np.inf)
    monkeypatch.setattr(scores.ScoreScan, "_reach", lambda _, *of: complete[: len(of[1])])
    with pytest.raises(AssertionError):
        check(index, ids, codes, relaxed, 10)


def test_wrong_queries_are_refused(tmp_path: Path) -> None:
    ids, codes, relaxed = drawn(32, "normal", 50)
    index = make_index(tmp_path, ids, codes, 32)
    for bad, k, complaint in (
        (relaxed[:, :31], 3, r"shape \(10, 31\)"),
        (relaxed, 0, "k is 0"),
        (relaxed, None, "a radius, or both"),
        (
            np.where(relaxed == relaxed[2, 5], np.nan, relaxed),
            3,
            "query 2 has numbers that are NaN",
        ),
    ):
        with pytest.raises(SchnRayError, match=complaint):
            index.scored(bad, k)
