"""Searches of rows that pass a filter: equal to brute force over these rows, whatever changes."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from support.gallery_codes import (
    Codes,
    draw_clustered,
    draw_codes,
    draw_ids,
    make_index,
    write_codes,
    write_columns_of,
)
from support.trials import on_trial

from schn_ray.cli.verbs.arguments import location_of
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index import columns as index_columns
from schn_ray.retrieval.index import inverted_lists, selection
from schn_ray.retrieval.index.build import rewrite_index, write_index
from schn_ray.retrieval.index.column_file import ColumnFile
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Lists, hamming
from schn_ray.retrieval.index.union import IndexUnion, Searchable
from schn_ray.retrieval.queries import id_queries
from schn_ray.retrieval.search import SearchLimits, search_codes

Passing = NDArray[np.bool_]


@pytest.fixture
def lists_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted_lists, "FEWEST", 100)
    monkeypatch.setattr(inverted_lists, "_MOST_LOOKED_AT", 9)
    monkeypatch.setattr(selection, "_FEWEST_BY_LISTS", 20)


def drawn(seed: int, bits: int, rows: int) -> tuple[list[str], Codes, dict[str, Any], Codes]:
    """Draw ids, codes with duplicates, columns, and queries near, far and equal."""
    rng = np.random.default_rng([seed, bits])
    codes = draw_clustered(rng, rows, bits, 12)
    codes[: rows // 4] = codes[rng.integers(0, rows // 50, rows // 4)]
    columns = {
        "number": rng.permutation(rows),
        "label": pa.array(rng.choice(["cat", "dog", "it's"], rows), mask=rng.random(rows) < 0.2),
    }
    queries = [codes[:4], draw_clustered(rng, 4, bits, 12), draw_codes(rng, 2, bits, 2)]
    return draw_ids(rng, rows), codes, columns, np.concatenate(queries)


def filters(ids: list[str], columns: dict[str, Any]) -> dict[str, Passing]:
    number, rows = columns["number"], len(ids)
    label = np.array(columns["label"].to_pylist(), object)
    return {
        "number >= 0": number >= 0,
        "number < 0": number < 0,
        "number = 7": number == 7,
        f"number < {rows // 2}": number < rows // 2,
        f"number < {rows // 40}": number < rows // 40,
        "label is null": label == None,  # noqa: E711
        "label = 'it''s' or number < 9": (label == "it's") | (number < 9),
        f"label in ('cat', 'dog') and not number < {rows // 9}": (
            np.isin(label, ["cat", "dog"]) & (number >= rows // 9)
        ),
        "id like '%1'": np.array([id.endswith("1") for id in ids]),
    }


def check(
    view: Searchable, ids: list[str], codes: Codes, passing: Passing, queries: Codes, k: int
) -> None:
    """Compare with all distances to the rows that pass."""
    names = np.array([id.encode() for id in ids], object)
    own = np.flatnonzero(passing)
    distances = hamming(queries, codes)
    radius = codes.shape[1]
    near, within = view.search(queries, k), view.within(queries, radius, k)
    assert len(view) == len(own)
    for query, of_all in enumerate(distances):
        order = own[np.lexsort((names[own], of_all[own]))]
        expected = of_all[order]
        assert near.ids(query) == [ids[i] for i in order[:k]]
        np.testing.assert_array_equal(near.distances[query], expected[:k])
        assert near.tied[query] == (expected[:k][-1:] == expected[:, None]).sum()
        close = order[expected <= radius]
        assert within.ids(query) == [ids[i] for i in close[:k]]
        assert within.within_radius[query] == len(close)


def check_scored(
    view: Searchable, ids: list[str], codes: Codes, passing: Passing, bits: int, k: int | None
) -> None:
    """Compare with all scores of the rows that pass; they are whole numbers, so many are equal."""
    rng = np.random.default_rng(bits)
    own = np.flatnonzero(passing)
    signs = np.unpackbits(codes, axis=1, count=bits, bitorder="little") * 2.0 - 1
    relaxed = (np.sign(signs[:6]) * rng.integers(1, 4, (6, bits))).astype(np.float32)
    names = np.array([id.encode() for id in ids], object)
    radius = None if k is not None else bits // 4
    scored = view.scored(relaxed, k, radius)
    for query, q in enumerate(relaxed):
        scores, distances = signs @ q, (signs * np.sign(q) < 0).sum(axis=1)
        order = own[np.lexsort((names[own], -scores[own]))]
        order = order if radius is None else order[distances[order] <= radius]
        assert scored.ids(query) == [ids[i] for i in order[:k]]
        np.testing.assert_allclose(scored.rows_of(query)[1], scores[order[:k]], atol=1e-6)


@pytest.mark.parametrize("seed", range(on_trial(20, 1)))
@pytest.mark.parametrize("bits", [7, 64, 100, 256])
def test_all_filters_answer_as_brute_force(
    tmp_path: Path, lists_for_few: None, bits: int, seed: int
) -> None:
    ids, codes, columns, queries = drawn(seed, bits, 1500)
    index = make_index(tmp_path, ids, codes, bits, columns=columns)
    for condition, passing in filters(ids, columns).items():
        view = index.where(condition)
        for k in (1, 10, 1000):
            check(view, ids, codes, passing, queries, k)
        for few in (10, None):
            check_scored(view, ids, codes, passing, bits, few)
    assert bits == 7 or isinstance(index.where("number < 700")._scan, Lists)
    check(index, ids, codes, np.ones(len(ids), np.bool_), queries, 10)  # itself unchanged


def test_without_lists_and_with_a_second_condition(tmp_path: Path) -> None:
    ids, codes, columns, queries = drawn(3, 32, 900)
    index = make_index(tmp_path, ids, codes, 32, columns=columns)
    passing = filters(ids, columns)
    for condition in passing:
        check(index.where(condition), ids, codes, passing[condition], queries, 10)
    twice = index.where("label is null").where("number < 450")
    both = passing["label is null"] & passing["number < 450"]
    check(twice, ids, codes, both, queries, 10)
    check_scored(twice, ids, codes, both, 32, 10)


def test_a_union_answers_as_the_whole(tmp_path: Path) -> None:
    ids, codes, columns, queries = drawn(0, 24, 600)
    parts = []
    for name, rows in {"a": range(200), "b": range(200, 600)}.items():
        own = {key: pa.array(values).take(pa.array(rows)) for key, values in columns.items()}
        part_ids, part_codes = [ids[i] for i in rows], codes[list(rows)]
        parts.append(make_index(tmp_path / name, part_ids, part_codes, 24, columns=own))
    union, passing = IndexUnion(parts), filters(ids, columns)
    for condition in passing:
        check(union.where(condition), ids, codes, passing[condition], queries, 10)
    only_first = int(columns["number"][5])  # the second index is empty then
    check(
        union.where(f"number = {only_first}"),
        ids,
        codes,
        columns["number"] == only_first,
        queries,
        10,
    )
    bare = make_index(tmp_path / "bare", ["other"], codes[:1], 24)
    with pytest.raises(SchnRayError, match=r"bare.*: no column 'number'.*index it again with"):
        IndexUnion([*parts, bare]).where("number = 1")


def test_an_id_that_does_not_pass_is_still_a_query(tmp_path: Path) -> None:
    ids, codes, columns, _ = drawn(0, 24, 300)
    view = make_index(tmp_path, ids, codes, 24, columns=columns).where("number < 20")
    passing = [ids[i] for i in np.flatnonzero(columns["number"] < 20)]
    inside, outside = passing[0], ids[int(np.argmax(columns["number"]))]
    limits = SearchLimits(300, where="number < 20")
    first, second = search_codes(view, id_queries(view, [inside, outside]), limits)
    assert sorted(hit.id for hit in first.hits) == sorted(set(passing) - {inside})
    assert sorted(hit.id for hit in second.hits) == sorted(passing)
    assert (first.passing, second.passing) == (20, 20)
    both = search_codes(view, id_queries(view, [inside, outside]), SearchLimits(3, 24))
    assert [result.within_radius for result in both] == [19, 20]
    (alone,) = search_codes(
        view.where(f"id = '{inside.replace(chr(39), chr(39) * 2)}'"),
        id_queries(view, [inside]),
        limits,
    )
    assert (alone.hits, alone.tied) == ((), 0)


def files(index: Path) -> dict[str, bytes]:
    (version,) = (path for path in index.iterdir() if path.is_dir())
    return {path.name: path.read_bytes() for path in version.iterdir()}


def test_changes_keep_columns_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_columns, "_ROWS_AT_ONCE", 64)  # pieces, as large indexes have
    ids, codes, columns, queries = drawn(0, 24, 400)
    first = {name: pa.array(values)[:300] for name, values in columns.items()}
    make_index(tmp_path, ids[:300], codes[:300], 24, columns=first)
    added = write_codes(tmp_path / "added", ids[250:], codes[250:], 24)
    of_file = {"number": np.r_[np.full(100, -1), columns["number"][100:]]}  # not of added rows
    file = write_columns_of(tmp_path / "added", ids, columns | of_file)
    rewrite_index(tmp_path / "index", add=added, remove=ids[100:300], columns=file)
    kept = [*range(100), *range(250, 400)]
    own = {name: pa.array(values).take(pa.array(kept)) for name, values in columns.items()}
    fresh_ids = [ids[i] for i in kept]
    make_index(tmp_path / "fresh", fresh_ids, codes[kept], 24, columns=own)
    assert files(tmp_path / "index") == files(tmp_path / "fresh" / "index")
    view = open_index(tmp_path / "index").where("number < 200")
    check(view, fresh_ids, codes[kept], columns["number"][kept] < 200, queries, 10)
    rewrite_index(tmp_path / "index", remove=fresh_ids[:200])
    assert len(open_index(tmp_path / "index").where("label is not null or number >= 0")) == 50


def test_columns_are_replaced(tmp_path: Path) -> None:
    ids, codes, columns, _ = drawn(0, 24, 300)
    make_index(tmp_path, ids, codes, 24)
    file = write_columns_of(tmp_path, ids, {"number": columns["number"] + 1})
    rewrite_index(tmp_path / "index", columns=file)
    assert len(open_index(tmp_path / "index").where("number = 300")) == 1
    rewrite_index(tmp_path / "index", columns=write_columns_of(tmp_path, ids, columns))
    changed = open_index(tmp_path / "index")
    assert (len(changed.where("number = 300")), len(changed.where("number = 0"))) == (0, 1)


def test_rows_and_ids_without_partner_are_counted(tmp_path: Path) -> None:
    ids, codes, columns, _ = drawn(0, 24, 300)
    order = [*ids[40:], "of no row", "nor this"]
    numbers = [*columns["number"][40:], 1, 2]
    file = write_columns_of(tmp_path, order, {"number": numbers, "vector": [[1.0]] * 262})
    made = write_index(
        write_codes(tmp_path / "codes", ids, codes, 24), tmp_path / "index", ColumnFile(file)
    )
    counts = made.counts
    assert (counts["rows_without_columns"], counts["columns_of_no_row"]) == (40, 2)
    assert counts["columns_left_out"] == "vector"
    assert len(open_index(tmp_path / "index").where("number is null")) == 40


DAY = datetime.date(2020, 1, 31)
NOON = datetime.datetime(2020, 1, 31, 12, tzinfo=datetime.UTC)
TYPED = {
    "small": pa.array([1, None, 3], pa.int8()),
    "half": pa.array([0.5, None, 2.0], pa.float16()),
    "price": pa.array([1, None, 3], pa.decimal128(9, 2)),
    "label": pa.array(["a", None, "b"]).dictionary_encode(),
    "view": pa.array(["a", None, ""], pa.string_view()),
    "inside": pa.array([True, None, False]),
    "tags": pa.array([["a", "b c"], [], ["b", None]]),
    "taken": pa.array([DAY, None, DAY], pa.date64()),
    "at": pa.array([NOON, None, NOON], pa.timestamp("ns", "Europe/Paris")),
    "empty": pa.nulls(3),
}


def test_types_of_parquet(tmp_path: Path) -> None:
    codes = np.arange(3, dtype=np.uint8)[:, None]
    pq.write_table(pa.table({"id": ["x", "y", "z"], **TYPED}), tmp_path / "c.parquet")
    written = write_codes(tmp_path / "codes", ["x", "y", "z"], codes, 8)
    write_index(written, tmp_path / "index", ColumnFile(tmp_path / "c.parquet"))
    index = open_index(tmp_path / "index")
    for condition in (
        "small = 1 and half = 0.5 and price = 1.0 and label = 'a' and view = 'a' and inside",
        "tags = 'b c' and tags like 'a'",
        "small = 1 and taken = '2020-01-31' and at = '2020-01-31 12:00' and empty is null",
    ):
        assert index.where(condition).search(codes[:1], 3).ids(0) == ["x"]
    assert index.where("tags = 'b'").search(codes[:1], 3).ids(0) == ["z"]
    missing = " and ".join(f"{name} is null" for name in TYPED)
    assert index.where(missing).search(codes[:1], 3).ids(0) == ["y"]
    assert index.where("view = ''").search(codes[:1], 3).ids(0) == ["z"]


def test_types_of_csv(tmp_path: Path) -> None:
    codes = np.arange(3, dtype=np.uint8)[:, None]
    (tmp_path / "c.csv").write_text(
        'id,n,score,label,taken,inside\n007,1,.5,"a, b",2020-01-31,true\n08,,,,,\nz,2,1,c,,false\n'
    )
    written = write_codes(tmp_path / "codes", ["007", "08", "z"], codes, 8)
    write_index(written, tmp_path / "index", ColumnFile(tmp_path / "c.csv"))
    index = open_index(tmp_path / "index")
    first = "n = 1 and score < 1 and label = 'a, b' and taken < '2020-02-01' and inside"
    assert index.where(first).search(codes[:1], 3).ids(0) == ["007"]
    assert index.where("n is null and inside is null").search(codes[:1], 3).ids(0) == ["08"]


@pytest.mark.parametrize(
    ("table", "names", "why"),
    [
        ({"name": ["x"], "n": [1]}, None, "has no column id.*Its columns: name, n"),
        ({"id": ["x"]}, None, "no columns to filter by"),
        ({"id": ["x"], "v": [[1]]}, None, "no columns to filter by"),
        ({"id": ["x"], "year": [1]}, ["yeer"], "no column 'yeer'; did you mean 'year'"),
        ({"id": ["x"], "v": [[1]]}, ["v"], "'v' is list"),
        ({"id": ["x"], "uri": ["a"]}, ["uri"], "a column that every index has"),
        ({"id": ["x", "y", "x"], "n": [1, 2, 3]}, None, "1 rows repeat an id, such as 'x'"),
        ({"id": ["x", None], "n": [1, 2]}, None, "a row has no id"),
        ({"id": ["q"], "n": [1]}, None, "no id of the columns is one of the index.*'q'.*'x'"),
        ({"id": pa.array([], pa.string()), "n": pa.array([], pa.int64())}, None, "has no rows"),
        ({"id": ["x"], "n": pa.array([2**64 - 1], pa.uint64())}, None, "the column 'n' is no int"),
    ],
)
def test_columns_that_are_refused(
    tmp_path: Path, table: dict[str, Any], names: list[str] | None, why: str
) -> None:
    codes = write_codes(tmp_path / "codes", ["x", "y"], np.zeros((2, 1), np.uint8), 8)
    pq.write_table(pa.table(table), tmp_path / "c.parquet")
    with pytest.raises(SchnRayError, match=why):
        write_index(codes, tmp_path / "index", ColumnFile(tmp_path / "c.parquet", names))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet", "codes"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("c.txt", "id,n\nx,1\n", r"come from a \.parquet or \.csv file, or a store"),
        ("c.parquet", "id,n\nx,1\n", "cannot be read"),
        ("c.csv", "id,n\nx,1\ny,1,2\n", "cannot be read.*Expected 2 columns, got 3"),
        ("c.csv", "id,n,n\nx,1,2\n", "more than one column 'n'"),
        ("c.csv", "", "cannot be read"),
        ("other.csv", None, "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: str | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    codes = write_codes(tmp_path / "codes", ["x", "y"], np.zeros((2, 1), np.uint8), 8)
    with pytest.raises(SchnRayError, match=why):
        write_index(codes, tmp_path / "index", ColumnFile(tmp_path / name))
    assert not (tmp_path / "index").exists()


def test_added_rows_need_the_same_columns(tmp_path: Path) -> None:
    codes = np.arange(4, dtype=np.uint8)[:, None]
    make_index(tmp_path / "bare", ["w"], codes[:1], 8)
    index = make_index(tmp_path, ["x", "y"], codes[:2], 8, columns={"n": [1, 2], "s": ["a", "b"]})
    added = write_codes(tmp_path / "added", ["z"], codes[3:], 8)
    before = files(index.path)

    def columns(**values: Any) -> Path:
        return write_columns_of(tmp_path, ["z"], values)

    with pytest.raises(SchnRayError, match="has the columns n, s: name a file"):
        rewrite_index(index.path, add=added)
    with pytest.raises(SchnRayError, match="no column 's'"):
        rewrite_index(index.path, add=added, columns=columns(n=[3]))
    with pytest.raises(SchnRayError, match="'n' is of the kind text, in the index of the kind int"):
        rewrite_index(index.path, add=added, columns=columns(n=["3"], s=["c"]))
    with pytest.raises(SchnRayError, match="leave out --columns-of"):
        rewrite_index(index.path, add=added, columns=columns(n=[3], s=["c"]), columns_of=["n"])
    with pytest.raises(SchnRayError, match="has no columns, so added rows cannot have any"):
        rewrite_index(tmp_path / "bare" / "index", add=added, columns=columns(n=[3]))
    assert files(index.path) == before
    (tmp_path / "c.csv").write_text("id,s,n\nz,3,3\n")  # texts there, so the 3 is one
    rewrite_index(index.path, add=added, columns=tmp_path / "c.csv")
    assert open_index(index.path).where("s = '3' and n = 3").search(codes[3:], 9).ids(0) == ["z"]


def test_verbs_do_not_forget_a_filter(tmp_path: Path) -> None:
    index = make_index(tmp_path, ["x", "y"], np.zeros((2, 1), np.uint8), 8)
    view: Index = index.where("id = 'x'")
    with pytest.raises(SchnRayError, match="forget the filter"):
        location_of(view)
    assert location_of(index) == str(index.path)
