"""The map of a gallery: its neighbours, its places, its table, against all pairs compared."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.manifold import trustworthiness
from support.gallery_codes import Codes, draw_clustered, make_index, write_codes
from support.image_files import write_tree
from support.users import Run

import schn_ray as face
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index import inverted_lists
from schn_ray.retrieval.map import layout
from schn_ray.retrieval.map.layout import lay_out
from schn_ray.retrieval.map.neighbours import nearest_codes

BITS = 64


def distances_of(codes: Codes) -> np.ndarray:
    return np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2)


def distinct(n: int, bits: int = BITS, centres: int = 8, flips: float = 0.05) -> Codes:
    rng = np.random.default_rng([n, bits])
    return np.unique(draw_clustered(rng, n, bits, centres, flips), axis=0)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize(("bits", "flips"), [(12, 0.1), (64, 0.05), (64, 0.5), (100, 0.02)])
def test_neighbours_are_the_nearest(
    bits: int, flips: float, lists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = distinct(300, bits, flips=flips)
    if lists:  # also where they do not pay
        monkeypatch.setattr(inverted_lists, "FEWEST", 1)
        monkeypatch.setattr(inverted_lists, "_MOST_LOOKED_AT", 9.0)
    expected = distances_of(codes)
    numbers, distances = nearest_codes(codes, 15)
    each = np.arange(len(codes))[:, None]
    assert np.array_equal(distances, np.sort(expected, axis=1)[:, 1:16])
    assert np.array_equal(expected[each, numbers], distances)
    assert (numbers != each).all()
    assert (np.diff(np.sort(numbers, axis=1)) > 0).all()


def test_few_codes_have_few_neighbours() -> None:
    assert nearest_codes(np.array([[1], [2], [7]], np.uint8), 15).numbers.shape == (3, 2)
    assert nearest_codes(np.array([[1]], np.uint8), 15).numbers.shape == (1, 0)


def trust(codes: Codes, positions: np.ndarray) -> float:
    ones = np.unpackbits(codes, axis=1)
    return float(trustworthiness(ones, positions, n_neighbors=10, metric="hamming"))


def test_near_codes_are_near_on_the_map() -> None:
    codes = distinct(500)
    near = nearest_codes(codes, 15).numbers
    positions = lay_out(codes, BITS, near, seed=0)
    assert trust(codes, positions) > 0.93
    assert trust(codes, np.random.default_rng(0).permutation(positions)) < 0.6
    assert np.array_equal(lay_out(codes, BITS, near, seed=0), positions)
    assert not np.array_equal(lay_out(codes, BITS, near, seed=1), positions)


def test_a_layout_that_begins_with_some_of_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_FIRST", 100)
    monkeypatch.setattr(layout, "_FINE_PHASES", ((1, 1.0, 0.5),))  # where they begin counts
    codes = np.concatenate([distinct(500), distinct(40, centres=1, flips=0.02) ^ np.uint8(85)])
    near = nearest_codes(codes, 15).numbers
    positions = lay_out(codes, BITS, near, seed=0)
    assert trust(codes, positions) > 0.93
    assert np.array_equal(lay_out(codes, BITS, near, seed=0), positions)
    # of codes that no path of neighbours leads to, too
    apart = lay_out(codes, BITS, np.roll(np.arange(len(codes)), -1)[:, None] // 50 * 50, seed=0)
    assert np.isfinite(apart).all()


@pytest.mark.parametrize("count", [1, 2, 7, 9])
@pytest.mark.parametrize("bits", [1, 8])
def test_few_codes_have_a_map(tmp_path: Path, count: int, bits: int) -> None:
    codes = (np.arange(count) % 2**bits).astype(np.uint8)[:, None]
    write_codes(tmp_path / "codes", [f"{i}" for i in range(count)], codes, bits, parts=1)
    result = face.map_codes(tmp_path / "codes", tmp_path / "map.html")
    table = pq.read_table(result.table)
    places = {(x, y) for x, y in zip(table["x"].to_pylist(), table["y"].to_pylist(), strict=True)}
    assert len(places) == result.counts.codes == min(count, 2**bits)
    assert np.isfinite(np.array(sorted(places))).all()


def write_gallery(folder: Path) -> tuple[list[str], Codes]:
    rng = np.random.default_rng(5)
    codes = draw_clustered(rng, 200, 32, 6, 0.06)
    ids = [f"{'ab'[i % 2]}/{i:03}.png" for i in rng.permutation(200)]
    write_codes(folder / "codes", ids, codes, 32)
    return ids, codes


def test_the_table_has_places_neighbours_and_groups(tmp_path: Path) -> None:
    ids, codes = write_gallery(tmp_path)
    out = tmp_path / "map.html"
    result = face.map_codes(tmp_path / "codes", out, radius=2)
    table = pq.read_table(tmp_path / "map.parquet")
    assert table.column_names == ["id", "uri", "x", "y", "group", "neighbors"]
    rows = table.to_pylist()
    code_of = dict(zip(ids, codes, strict=True))
    assert [row["id"] for row in rows] == sorted(ids)
    assert all(row["uri"] == f"file:{row['id']}" for row in rows)
    ordered = np.array([code_of[row["id"]] for row in rows])
    expected = distances_of(ordered)
    place_of = {bytes(code): (row["x"], row["y"]) for code, row in zip(ordered, rows, strict=True)}
    others = np.unique(ordered, axis=0)
    for number, row in enumerate(rows):
        near = row["neighbors"]
        assert expected[number, near["ids"]].tolist() == near["distances"]
        to_codes = np.bitwise_count(others ^ ordered[number]).sum(axis=1)
        assert near["distances"] == np.sort(to_codes)[1:16].tolist()
        assert place_of[bytes(ordered[number])] == (row["x"], row["y"])
    face.duplicates(tmp_path / "codes", tmp_path / "groups.parquet", radius=2, verify="none")
    groups = pq.read_table(tmp_path / "groups.parquet").to_pylist()
    assert {row["id"]: row["group"] for row in rows if row["group"]} == {
        row["id"]: f"group {row['group']}" for row in groups
    }
    assert (result.counts.rows, result.counts.codes) == (200, len(others))
    assert str(result.counts) in out.read_text()
    before = out.read_bytes(), (tmp_path / "map.parquet").read_bytes()
    make_index(tmp_path / "again", ids, codes, 32)
    face.map_codes(tmp_path / "again" / "index", out, radius=2)  # the same of an index
    assert out.read_bytes() == before[0]
    assert pq.read_table(tmp_path / "map.parquet").equals(table)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "again",
        "codes",
        "groups.parquet",
        "map.html",
        "map.parquet",
    ]


def test_a_large_gallery_is_drawn_from(tmp_path: Path) -> None:
    ids, _ = write_gallery(tmp_path)
    drawn = []
    for seed in (0, 0, 1):
        result = face.map_codes(tmp_path / "codes", tmp_path / "map.html", most=40, seed=seed)
        assert str(result.counts).startswith("40 of 200 images, drawn at random, with ")
        assert str(result.counts) in (tmp_path / "map.html").read_text()
        drawn.append(pq.read_table(result.table)["id"].to_pylist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) < set(ids)
    assert all(len(set(each)) == 40 for each in drawn)


def test_colours_by_label(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos", {"cat": 6, "dog": 5})
    store = face.prepare(tmp_path / "photos", tmp_path / "store")
    ids = [*face.open_store(store).ids.to_pylist(), "unknown"]
    codes = np.arange(len(ids), dtype=np.uint8)[:, None]
    write_codes(tmp_path / "codes", ids, codes, 8)
    result = face.map_codes(tmp_path / "codes", tmp_path / "map.html", labels=store)
    labels = {row["id"]: row["label"] for row in pq.read_table(result.table).to_pylist()}
    assert labels == {id: id.split("/")[0] if "/" in id else None for id in ids}
    write_codes(tmp_path / "other", [f"x{id}" for id in ids], codes, 8)
    with pytest.raises(SchnRayError, match="none of the ids"):
        face.map_codes(tmp_path / "other", tmp_path / "map.html", labels=store)


def test_the_command_is_the_function(tmp_path: Path, schn_ray: Run) -> None:
    write_gallery(tmp_path)
    answer = schn_ray("map", tmp_path / "codes", "--out", tmp_path / "a.html", "-r", 1)
    function = face.map_codes(tmp_path / "codes", tmp_path / "b.html", radius=1)
    assert (answer.code, answer.out) == (0, f"{function!r}\n".replace("/b.", "/a."))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_cannot_be_mapped(
    tmp_path: Path, schn_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gallery(tmp_path)

    def refused(*words: object) -> str:
        answer = schn_ray("map", *words)
        assert (answer.code, answer.out) == (2, "")
        return answer.err

    codes, out = tmp_path / "codes", tmp_path / "map.html"
    (tmp_path / "folder.html").mkdir()
    assert "name an HTML file" in refused(codes, "--out", tmp_path / "folder.html")
    assert "name an HTML file" in refused(codes, "--out", tmp_path / "map.parquet")
    assert "photos" in refused(tmp_path / "photos", "--out", out)
    assert "wanted a store" in refused(codes, "--out", out, "--labels", codes)
    part = codes / "data" / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    assert "data/part-00001.parquet" in refused(codes, "--out", out)
    monkeypatch.setattr(layout, "_PACKAGE", "no_such_package")
    assert "pip install 'schn-ray[map]'" in refused(codes, "--out", out)
    assert not out.exists()
    assert not (tmp_path / "map.parquet").exists()
