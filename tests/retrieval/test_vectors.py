"""Searches rescored by vectors of the index: all against the cosines of all rows."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from support.gallery_codes import Codes, draw_clustered, draw_ids, make_index, write_codes

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index import inverted_lists, rescoring
from schn_ray.retrieval.index.build import rewrite_index, write_index
from schn_ray.retrieval.index.checked_files import BLOCK
from schn_ray.retrieval.index.index import open_index, verify_index
from schn_ray.retrieval.index.union import IndexUnion, Searchable
from schn_ray.retrieval.index.vectors import as_queries, query_cosines

Floats = NDArray[np.float32]
BITS, WIDTH = 20, 13


class Drawn(NamedTuple):
    """Rows of a gallery: ids [n], codes, relaxed outputs [n, K], features [n, d]."""

    ids: list[str]
    codes: Codes
    relaxed: Floats
    features: Floats

    def __getitem__(self, rows: slice) -> "Drawn":  # type: ignore[override]
        return Drawn(*(column[rows] for column in tuple(self)))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    rng = np.random.default_rng(5)
    codes = draw_clustered(rng, 900, BITS, 6)  # few codes: rows tie at the edge of the candidates
    signs = np.unpackbits(codes, axis=1, count=BITS, bitorder="little") * 2.0 - 1
    relaxed = np.round(np.tanh(signs * rng.uniform(0.1, 2, (900, BITS))), 3).astype(np.float32)
    features = rng.normal(size=(900, WIDTH)) * 10.0 ** rng.integers(-3, 3, (900, 1))
    features[400:420] = features[0] * rng.uniform(0.5, 9, (20, 1))  # equal directions tie
    features[[7, 500]] = 0
    return Drawn(draw_ids(rng, 900), codes, relaxed, features.astype(np.float32))


def made(folder: Path, rows: Drawn) -> Searchable:
    vectors = {"relaxed": rows.relaxed, "features": rows.features}
    return make_index(folder, rows.ids, rows.codes, BITS, **vectors)


def as_stored(X: Floats) -> NDArray[np.float64]:
    """Return rows as whole numbers up to 127, of length 1."""
    largest = np.maximum(np.abs(X).max(axis=1, keepdims=True), 1e-30).astype(np.float64)
    whole = np.round(X / largest * 127)
    return whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-30)


def check(
    index: Searchable,
    rows: Drawn,
    by: str,
    queries: Drawn,
    k: int | None,
    most: int | None,
    radius: int | None = None,
) -> None:
    asked, gallery = getattr(queries, by), getattr(rows, by)
    answer = index.rescored(by, queries.codes, asked, k, most, radius)
    gallery = as_stored(
        gallery.astype(np.float16).astype(np.float32) if by == "relaxed" else gallery
    )
    for query, (code, q) in enumerate(zip(queries.codes, asked.astype(np.float64), strict=True)):
        distances = np.bitwise_count(rows.codes ^ code).sum(axis=1)
        near = distances <= (BITS if radius is None else radius)
        edge = np.sort(distances[near])[: most or len(rows.ids)]
        chosen = np.flatnonzero(near & (distances <= (edge[-1] if len(edge) else -1)))
        scores = np.round(gallery @ q / (np.linalg.norm(q) or 1), 7)
        expected = sorted((-scores[i], rows.ids[i], distances[i]) for i in chosen)
        ids, (_, got, bits) = answer.ids(query), answer.rows_of(query)
        assert ids == [id for _, id, _ in expected[:k]]
        np.testing.assert_allclose(got, [-s for s, _, _ in expected[:k]], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(bits, [d for _, _, d in expected[:k]])
        assert answer.candidates is not None
        assert answer.candidates[query] == len(chosen)
        last = expected[:k][-1][0] if expected else None
        assert answer.tied[query] == sum(s == last for s, _, _ in expected)
        if radius is not None:
            assert answer.within_radius is not None
            assert answer.within_radius[query] == near.sum()


CASES = [
    (5, 50, None),
    (1, 1, None),
    (300, 300, None),
    (4, 20, 3),
    (None, None, 2),
    (7, 5000, None),
]


@pytest.mark.parametrize("by", ["relaxed", "features"])
@pytest.mark.parametrize("lists", [False, True])
def test_the_nearest_by_bits_in_the_order_of_cosines(
    tmp_path: Path, drawn: Drawn, by: str, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescoring, "_ROWS_AT_ONCE", 64)  # candidates go through in pieces
    if lists:
        monkeypatch.setattr(inverted_lists, "FEWEST", 50)
        monkeypatch.setattr(inverted_lists, "_MOST_LOOKED_AT", 9)
    index = made(tmp_path, drawn)
    assert open_index(tmp_path / "index").info()["scan"] == (
        "lists" if lists else "all distinct codes"
    )
    for k, most, radius in CASES:
        check(index, drawn, by, drawn[:8], k, most, radius)


def test_a_union_chooses_as_one_index_would(tmp_path: Path, drawn: Drawn) -> None:
    cuts = [slice(0, 500), slice(500, 890), slice(890, 900)]
    union = IndexUnion([made(tmp_path / str(cut.start), drawn[cut]) for cut in cuts])  # type: ignore[misc]
    for k, most, radius in CASES:
        check(union, drawn, "features", drawn[:8], k, most, radius)
    rows = np.array([union.find(drawn.ids[i]) for i in (3, 600, 895)])
    whole = made(tmp_path / "whole", drawn)
    same = np.array([whole.find(drawn.ids[i]) for i in (3, 600, 895)])
    for name in ("relaxed", "features"):
        np.testing.assert_array_equal(union.vectors(name, rows), whole.vectors(name, same))


def test_a_filter_comes_before_the_choice(tmp_path: Path, drawn: Drawn) -> None:
    parts = [
        made(tmp_path / name, drawn[cut])
        for name, cut in (("a", slice(600)), ("b", slice(600, 900)))
    ]
    condition = "id like '%7%'"
    passing = [i for i, id in enumerate(drawn.ids) if "7" in id]
    rows = Drawn([drawn.ids[i] for i in passing], *(column[passing] for column in tuple(drawn)[1:]))
    union = IndexUnion(parts).where(condition)  # type: ignore[arg-type]
    for k, most, radius in CASES:
        check(union, rows, "features", drawn[:6], k, most, radius)
    none = (
        parts[0]
        .where("id = 'none'")
        .rescored("features", drawn.codes[:2], drawn.features[:2], 3, 9)
    )
    assert none.candidates is not None
    assert (none.rows.size, none.candidates.tolist(), none.tied.tolist()) == (0, [0, 0], [0, 0])


def test_a_changed_index_is_as_if_built_so(tmp_path: Path, drawn: Drawn) -> None:
    made(tmp_path, drawn[:600])
    more = drawn[500:]
    vectors = {"relaxed": more.relaxed, "features": more.features}
    write_codes(tmp_path / "more", more.ids, more.codes, BITS, **vectors)
    rewrite_index(tmp_path / "index", add=tmp_path / "more", remove=drawn.ids[400:600])
    rest = [*range(400), *range(500, 900)]
    kept = Drawn([drawn.ids[i] for i in rest], *(column[rest] for column in tuple(drawn)[1:]))
    made(tmp_path / "fresh", kept)
    changed, fresh = open_index(tmp_path / "index"), open_index(tmp_path / "fresh" / "index")
    assert sorted(changed.manifest.files.values()) == sorted(fresh.manifest.files.values())
    assert changed.vector_names == ("relaxed", "features")
    check(changed, kept, "features", drawn[:3], 5, 30)


def test_equal_vectors_have_equal_scores_wherever_they_lie() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(-127, 128, (1000, 1280)).astype(np.int8)
    vectors[rng.permutation(1000)[:400]] = vectors[0]
    equal = (vectors == vectors[0]).all(axis=1)
    (scores,) = query_cosines(as_queries(rng.normal(size=(1, 1280)).astype(np.float32)), vectors)
    assert len(np.unique(scores[equal])) == 1
    assert len(np.unique(scores)) == 1 + (~equal).sum()


def test_a_flipped_bit_of_a_vector_is_an_error(tmp_path: Path, drawn: Drawn) -> None:
    index = made(tmp_path, drawn)
    path = tmp_path / "index" / "1" / "features"
    data = bytearray(path.read_bytes())
    assert len(data) < BLOCK
    data[4000] ^= 1
    path.write_bytes(data)
    damaged = open_index(tmp_path / "index")
    assert len(damaged.search(drawn.codes[:2], 5).rows) == 2  # codes are sound
    with pytest.raises(SchnRayError, match="features is damaged"):
        damaged.rescored("features", drawn.codes[:1], drawn.features[:1], 5, 50)
    with pytest.raises(SchnRayError, match="features"):
        verify_index(tmp_path / "index")
    assert len(index) == 900


def test_what_cannot_be_rescored_is_refused(tmp_path: Path, drawn: Drawn) -> None:
    few = drawn[:40]
    bare = make_index(tmp_path / "bare", few.ids, few.codes, BITS)
    with pytest.raises(SchnRayError, match="index its codes again with --with features"):
        bare.rescored("features", few.codes, few.features, 5, 50)
    with pytest.raises(SchnRayError, match="encode with --set relaxed=true"):
        write_index(tmp_path / "bare" / "codes", tmp_path / "other", vectors=["relaxed"])
    with pytest.raises(SchnRayError, match="relaxed or features"):
        write_index(tmp_path / "bare" / "codes", tmp_path / "other", vectors=["pixels"])
    assert not (tmp_path / "other").exists()
    index = made(tmp_path / "with", few)
    with pytest.raises(SchnRayError, match="has no relaxed: encode with"):
        rewrite_index(tmp_path / "with" / "index", add=tmp_path / "bare" / "codes")
    bad = few.features.copy()
    bad[3, 2] = np.inf
    for vectors, k, most, complaint in (
        (few.features[:, :5], 5, 50, r"shape \(40, 5\); the index holds vectors of 13 numbers"),
        (bad, 5, 50, "vector 3 has numbers that are NaN or infinite"),
        (few.features, 0, 50, "k is 0"),
        (few.features, 5, None, "name 1 or more candidates"),
    ):
        with pytest.raises(SchnRayError, match=complaint):
            index.rescored("features", few.codes, vectors, k, most)
    one = IndexUnion([index, bare])  # type: ignore[list-item]
    with pytest.raises(SchnRayError, match="bare"):
        one.rescored("features", few.codes, few.features, 5, 50)
