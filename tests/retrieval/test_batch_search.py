"""Whole galleries searched part by part, in this process; tests/cluster does it on Ray."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.gallery_codes import draw_clustered, draw_ids, make_index, write_codes

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.index.build import rewrite_index
from schn_ray.retrieval.index.index import open_index
from schn_ray.retrieval.search import SearchLimits

BITS = 24


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    codes, ids = draw_clustered(rng, 500, BITS, 6), draw_ids(rng, 500)
    make_index(tmp_path, ids[:300], codes[:300], BITS)
    make_index(tmp_path / "second", ids[300:], codes[300:], BITS)
    make_index(tmp_path / "whole", ids, codes, BITS)
    write_codes(tmp_path / "queries", ids[:90], codes[:90], BITS, parts=4)
    return tmp_path


def rows_in(out: Path) -> list[dict[str, object]]:
    parts = sorted(out.glob("matches-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.mark.parametrize("wanted", [SearchLimits(7), SearchLimits(5, 3), SearchLimits(None, 2)])
def test_two_indexes_answer_as_the_whole(gallery: Path, wanted: SearchLimits) -> None:
    indexes = [gallery / "index", gallery / "second" / "index"]
    made = search_gallery(indexes, gallery / "queries", gallery / "out", wanted)
    whole = open_index(gallery / "whole" / "index")
    found = rows_in(gallery / "out")
    assert made.counts == {"queries": 90, "parts": 4, "rows": 500}
    for row in found:
        code = whole.codes(np.array([whole.find(str(row["query"]))]))
        if wanted.radius is None:
            near = whole.search(code, 7)
            assert row["tied"] == near.tied[0]
            expected = near.distances[0]
        else:
            within = whole.within(code, wanted.radius, wanted.k)
            assert row["within_radius"] == within.within_radius[0]
            near, expected = within, within.distances
        assert (row["ids"], row["distances"]) == (near.ids(0), expected.tolist())


@pytest.mark.parametrize("limits", [SearchLimits(7, None, "query"), SearchLimits(None, 2, "query")])
def test_rescored_with_what_encode_wrote(gallery: Path, limits: SearchLimits) -> None:
    rng = np.random.default_rng(1)
    relaxed = (rng.normal(size=(90, BITS)) * 10.0 ** rng.integers(-9, 2, (90, BITS))).astype("f4")
    packed = np.packbits(relaxed >= 0, axis=1, bitorder="little")
    queries = [f"q{i}" for i in range(90)]
    write_codes(gallery / "asked", queries, packed, BITS, parts=2, relaxed=relaxed)
    indexes = [gallery / "index", gallery / "second" / "index"]
    search_gallery(indexes, gallery / "asked", gallery / "out", limits)
    whole = open_index(gallery / "whole" / "index")
    stored = np.where(relaxed.astype("f2") == 0, np.sign(relaxed) * 2.0**-24, relaxed.astype("f2"))
    expected = whole.scored(stored, limits.k, limits.radius)
    for query, row in enumerate(rows_in(gallery / "out")):
        _, scores, distances = expected.rows_of(query)
        assert (row["query"], row["ids"]) == (f"q{query}", expected.ids(query))
        np.testing.assert_allclose(row["scores"], scores, atol=1e-5)
        assert row["distances"] == distances.tolist()
        if expected.within_radius is None:
            assert row["tied"] == expected.tied[query]
        else:
            assert row["within_radius"] == expected.within_radius[query]


@pytest.mark.parametrize("by", ["relaxed", "features"])
def test_rescored_by_vectors_of_two_indexes(tmp_path: Path, by: str) -> None:
    rng = np.random.default_rng(2)
    codes, ids = draw_clustered(rng, 400, BITS, 6), draw_ids(rng, 400)
    U = (np.unpackbits(codes, axis=1, count=BITS, bitorder="little") - 0.5) * rng.random(
        (400, BITS)
    )
    names, vectors = (
        ("relaxed", "features"),
        (U.astype("f4"), rng.normal(size=(400, 9)).astype("f4")),
    )
    for name, cut in (("a", slice(0, 250)), ("b", slice(250, 400)), ("whole", slice(0, 400))):
        own = {kind: X[cut] for kind, X in zip(names, vectors, strict=True)}
        make_index(tmp_path / name, ids[cut], codes[cut], BITS, **own)
    asked = {name: X[:50] for name, X in zip(names, vectors, strict=True)}
    write_codes(tmp_path / "asked", ids[:50], codes[:50], BITS, **asked)
    limits = SearchLimits(4, None, by, 5)
    indexes = [tmp_path / "a" / "index", tmp_path / "b" / "index"]
    search_gallery(indexes, tmp_path / "asked", tmp_path / "out", limits)
    whole = open_index(tmp_path / "whole" / "index")
    at = np.array([whole.find(id) for id in ids[:50]])
    X = whole.vectors("features", at) if by == "features" else vectors[0][:50].astype("f2")
    expected = whole.rescored(by, codes[:50], X.astype("f4"), 4, 20)
    rows = rows_in(tmp_path / "out")
    assert [row["ids"] for row in rows] == [expected.ids(query) for query in range(50)]
    np.testing.assert_allclose([row["scores"] for row in rows], expected.scores.reshape(50, 4))
    assert [row["candidates"] for row in rows] == expected.candidates.tolist()  # type: ignore[union-attr]
    with pytest.raises(SchnRayError, match="--oversample is 0"):
        SearchLimits(4, None, by, 0)


@pytest.mark.parametrize(("k", "radius"), [(7, None), (None, 3)])
def test_a_filter_holds_for_all_queries(gallery: Path, k: int | None, radius: int | None) -> None:
    limits = SearchLimits(k, radius, where="id like '%1%'")
    indexes = [gallery / "index", gallery / "second" / "index"]
    made = search_gallery(indexes, gallery / "queries", gallery / "out", limits)
    whole, rows = open_index(gallery / "whole" / "index"), np.arange(500)
    passing = [i for i, id in enumerate(whole.ids(rows)) if "1" in id]
    assert made.counts["rows_that_pass"] == len(passing)
    for row in rows_in(gallery / "out"):
        code = whole.codes(np.array([whole.find(str(row["query"]))]))
        near = whole.search(code, 500)
        kept = [
            (r, d) for r, d in zip(near.rows[0], near.distances[0], strict=True) if r in passing
        ]
        kept = kept[:k] if radius is None else [(r, d) for r, d in kept if d <= radius]
        assert row["ids"] == whole.ids(np.array([r for r, _ in kept], np.int64))
        assert row["distances"] == [d for _, d in kept]


def test_a_bad_filter_leaves_nothing(gallery: Path) -> None:
    with pytest.raises(SchnRayError, match="no others: index it again with --columns"):
        search_gallery(
            [gallery / "index"],
            gallery / "queries",
            gallery / "out",
            SearchLimits(3, where="label = 'cat'"),
        )
    assert not (gallery / "out").exists()


def test_codes_without_relaxed_cannot_rescore(gallery: Path) -> None:
    with pytest.raises(SchnRayError, match="encode the queries with --set relaxed=true"):
        search_gallery(
            [gallery / "index"],
            gallery / "queries",
            gallery / "out",
            SearchLimits(3, None, "query"),
        )
    assert not (gallery / "out").exists()


def test_parts_that_are_there_are_not_made_again(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(function, shards):  # type: ignore[no-untyped-def]
        for shard in shards[:2]:
            yield function(shard)
        raise KeyboardInterrupt

    arguments = ([gallery / "index"], gallery / "queries", gallery / "out", SearchLimits(3))
    with pytest.raises(KeyboardInterrupt):
        search_gallery(*arguments, half)
    assert not (gallery / "out" / MANIFEST).exists()
    (gallery / "out" / "matches-00003.parquet.x.partial").write_bytes(b"of a killed worker")
    (gallery / "out" / "matches-00002.parquet").write_bytes(b"killed before its receipt")
    before = {p.name: p.stat().st_mtime_ns for p in (gallery / "out").glob("matches-*.parquet")}
    del before["matches-00002.parquet"]
    assert len(before) == 2
    search_gallery(*arguments)
    after = {p.name: p.stat().st_mtime_ns for p in (gallery / "out").glob("matches-*")}
    assert len(after) == 4
    assert before.items() <= after.items()
    assert len(rows_in(gallery / "out")) == 90
    with pytest.raises(AlreadyDone):
        search_gallery(*arguments)
    with pytest.raises(SchnRayError, match="k: 3 there, 4 now"):
        search_gallery(*arguments[:3], SearchLimits(4))


def test_an_index_that_was_changed_is_read_again(gallery: Path) -> None:
    limits = SearchLimits(2)
    search_gallery([gallery / "index"], gallery / "queries", gallery / "before", limits)
    removed = {str(row["ids"][0]) for row in rows_in(gallery / "before")}  # type: ignore[index]
    rewrite_index(gallery / "index", remove=sorted(removed))
    search_gallery([gallery / "index"], gallery / "queries", gallery / "after", limits)
    assert not removed & {id for row in rows_in(gallery / "after") for id in row["ids"]}  # type: ignore[attr-defined]


def test_an_index_that_is_changed_meanwhile_is_refused(gallery: Path) -> None:
    def changing(function, shards):  # type: ignore[no-untyped-def]
        rewrite_index(gallery / "index", remove=open_index(gallery / "index").ids(np.arange(9)))
        yield from map(function, shards)

    arguments = ([gallery / "index"], gallery / "queries", gallery / "out", SearchLimits(3))
    with pytest.raises(SchnRayError, match="was changed while it was searched"):
        search_gallery(*arguments, changing)


def test_damaged_queries_are_refused_where_they_are_read(gallery: Path) -> None:
    def damaging(function, shards):  # type: ignore[no-untyped-def]
        part = gallery / "queries" / "data" / "part-00002.parquet"
        content = bytearray(part.read_bytes())
        content[100] ^= 1
        part.write_bytes(content)
        yield from map(function, shards)

    arguments = ([gallery / "index"], gallery / "queries", gallery / "out", SearchLimits(3))
    with pytest.raises(SchnRayError, match=r"part-00002\.parquet differs from its"):
        search_gallery(*arguments, damaging)


def test_a_part_that_is_damaged_before_the_end_is_no_answer(gallery: Path) -> None:
    def damaging(function, shards):  # type: ignore[no-untyped-def]
        yield from map(function, shards)
        part = gallery / "out" / "matches-00001.parquet"
        content = bytearray(part.read_bytes())
        content[len(content) // 3] ^= 1
        part.write_bytes(content)

    arguments = ([gallery / "index"], gallery / "queries", gallery / "out", SearchLimits(3))
    search_gallery(*arguments, damaging)
    matches = open_artefact(gallery / "out", "matches")
    matches.file("matches-00000.parquet")
    with pytest.raises(SchnRayError, match=r"matches-00001\.parquet differs from its manifest"):
        matches.check()


def test_a_damaged_receipt_is_made_again(gallery: Path) -> None:
    def half(function, shards):  # type: ignore[no-untyped-def]
        yield function(shards[0])
        (gallery / "out" / "receipts" / "matches-00000.json").write_text('{"sha256": 3')
        raise KeyboardInterrupt

    arguments = ([gallery / "index"], gallery / "queries", gallery / "out", SearchLimits(3))
    with pytest.raises(KeyboardInterrupt):
        search_gallery(*arguments, half)
    search_gallery(*arguments)
    open_artefact(gallery / "out", "matches").check()
    assert len(rows_in(gallery / "out")) == 90


def test_queries_of_other_bits_are_refused(gallery: Path) -> None:
    codes = write_codes(gallery / "wide", ["a"], np.zeros((1, 4), np.uint8), 32, parts=1)
    with pytest.raises(SchnRayError, match="another model"):
        search_gallery([gallery / "index"], codes, gallery / "out", SearchLimits(3))
    assert not (gallery / "out").exists()
