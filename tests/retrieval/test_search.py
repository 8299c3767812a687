"""Searches as typed: by images, ids and codes, near and within; what they print."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.service import write_gallery
from support.users import Run

from schn_ray.models.hasher import load
from schn_ray.retrieval.index.index import Index, open_index


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("search"))


def test_images_ids_and_codes_at_once(schn_ray: Run, gallery: Path) -> None:
    index, photo = gallery / "index", gallery / "photos" / "cat" / "004.png"
    code = load(gallery / "model").encode([photo])
    model = ("--model", gallery / "model")
    asked = [index, photo, *model, "--id", "cat/004.png", "--code", code[0].tobytes().hex()]
    answer = schn_ray("search", *asked, "-k", 6, "--json")
    assert answer.code == 0, answer.err
    by_image, by_id, by_code = json.loads(answer.out)
    expected = open_index(index).search(code, 7)
    assert [hit["id"] for hit in by_image["hits"]] == expected.ids(0)[:6]
    assert by_code["hits"] == by_image["hits"]
    others = [id for id in expected.ids(0) if id != "cat/004.png"]
    assert [hit["id"] for hit in by_id["hits"]] == others[:6]
    assert by_image["tied"] == open_index(index).search(code, 6).tied[0]


def test_rescored_by_image_and_by_id(schn_ray: Run, gallery: Path) -> None:
    index, photo = gallery / "index", gallery / "photos" / "cat" / "004.png"
    asked = ("search", index, photo, "--id", "cat/004.png", "--model", gallery / "model")
    answer = schn_ray(*asked, "--rescore", "query", "-k", 6, "--json")
    assert answer.code == 0, answer.err
    by_image, by_id = json.loads(answer.out)
    relaxed = load(gallery / "model").relaxed_of([photo])
    expected = open_index(index).scored(relaxed, 40)
    rows, scores, distances = expected.rows_of(0)
    assert [hit["id"] for hit in by_image["hits"]] == expected.ids(0)[:6]
    assert [hit["score"] for hit in by_image["hits"]] == scores[:6].tolist()
    assert [hit["distance"] for hit in by_image["hits"]] == distances[:6].tolist()
    assert (by_image["rescored"], by_image["tied"]) == ("query", sum(scores == scores[5]))
    others = np.flatnonzero(rows != open_index(index).find("cat/004.png"))
    assert [hit["id"] for hit in by_id["hits"]] == [expected.ids(0)[i] for i in others[:6]]
    assert by_id["tied"] == sum(scores[others] == scores[others][5])
    (near,) = json.loads(
        schn_ray(*asked[:3], *asked[5:], "--rescore", "query", "-r", 3, "--json").out
    )
    assert [hit["id"] for hit in near["hits"]] == [
        id for id, d in zip(expected.ids(0), distances, strict=True) if d <= 3
    ]
    assert near["within_radius"] == len(near["hits"])
    assert f"{scores[0]:9.4f}  {expected.ids(0)[0]}" in schn_ray(*asked, "--rescore", "query").out


def test_rescored_by_vectors_of_the_index(schn_ray: Run, gallery: Path, tmp_path: Path) -> None:
    photo, page = gallery / "photos" / "cat" / "004.png", tmp_path / "page.html"
    asked = ("search", gallery / "index", photo, "--model", gallery / "model", "-k", 3)
    rescored = ("--rescore", "features", "--oversample", 4)
    index, hasher = open_index(gallery / "index"), load(gallery / "model")
    F, _ = hasher.outputs_of([photo])
    expected = index.rescored("features", hasher.encode([photo]), F, 3, 12)
    answer = schn_ray(*asked, *rescored, "--html", page, "--json")
    assert answer.code == 0, answer.err
    (result,) = json.loads(answer.out)
    assert [hit["id"] for hit in result["hits"]] == expected.ids(0)
    assert [hit["score"] for hit in result["hits"]] == expected.scores.tolist()
    assert expected.candidates is not None
    candidates = int(expected.candidates[0])
    assert (result["candidates"], result["proven"], result["tied"]) == (candidates, False, 1)
    assert 12 <= candidates < 40
    choice = f"the nearest {candidates} by bits scored by features: a choice"
    assert choice in schn_ray(*asked, *rescored).out
    assert choice in page.read_text()
    assert f"score {expected.scores[0]:.4f}" in page.read_text()
    (usual,) = json.loads(schn_ray(*asked, "--rescore", "relaxed", "--json").out)
    assert 30 <= usual["candidates"] < 40


def test_an_id_is_rescored_by_its_own_vector_without_a_model(schn_ray: Run, gallery: Path) -> None:
    asked = ("search", gallery / "index", "--id", "cat/004.png", "-k", 5, "--json")
    (result,) = json.loads(schn_ray(*asked, "--rescore", "features", "--oversample", 8).out)
    index = open_index(gallery / "index")
    row = np.array([index.find("cat/004.png")])
    vector = index.vectors("features", row)
    expected = index.rescored("features", index.codes(row), vector, None, 40)
    assert (expected.ids(0)[0], expected.scores[0]) == ("cat/004.png", pytest.approx(1))
    assert [hit["id"] for hit in result["hits"]] == expected.ids(0)[1:6]
    assert [hit["score"] for hit in result["hits"]] == expected.scores[1:6].tolist()
    assert result["tied"] == sum(expected.scores[1:] == expected.scores[5])
    assert (result["candidates"], result["proven"]) == (39, True)
    (near,) = json.loads(schn_ray(*asked[:4], "-r", 3, "--rescore", "features", "--json").out)
    others = [id for id, d in zip(expected.ids(0), expected.distances, strict=True) if d <= 3][1:]
    assert [hit["id"] for hit in near["hits"]] == others
    assert near["within_radius"] == near["candidates"] == len(others) > 0
    assert near["proven"]


def test_a_radius_counts_all_and_shows_k(schn_ray: Run, gallery: Path) -> None:
    index = open_index(gallery / "index")
    within = index.within(index.codes(np.array([index.find("cat/004.png")])), 4)
    asked = ("search", gallery / "index", "--id", "cat/004.png", "-r", 4, "--json")
    (found,) = json.loads(schn_ray(*asked).out)
    others = [id for id in within.ids(0) if id != "cat/004.png"]
    assert [hit["id"] for hit in found["hits"]] == others
    assert found["within_radius"] == len(others) > 2
    (few,) = json.loads(schn_ray(*asked, "-k", 2).out)
    assert [hit["id"] for hit in few["hits"]] == others[:2]
    assert few["within_radius"] == len(others)


def test_a_filter_comes_before_the_ranking(schn_ray: Run, gallery: Path, tmp_path: Path) -> None:
    index, where = open_index(gallery / "index"), "label = 'dog' and number < 12"
    asked = ("search", gallery / "index", "--where", where, "-k", 5)
    passing = np.array([i for i, id in enumerate(ids_of(index)) if id[:3] == "dog"][:12])
    for id in ("cat/004.png", "dog & co/004.png"):
        code = index.codes(np.array([index.find(id)]))
        near = [i for i in index.search(code, 40).rows[0] if i in passing and i != index.find(id)]
        (result,) = json.loads(schn_ray(*asked, "--id", id, "--json").out)
        assert [hit["id"] for hit in result["hits"]] == index.ids(np.array(near[:5]))
        assert (result["where"], result["passing"]) == (where, 12)
    page = tmp_path / "found.html"
    answer = schn_ray(*asked, "--id", "cat/004.png", "--html", page)
    assert answer.out.splitlines()[0] == "cat/004.png: 12 pass the filter"
    shown = (
        "the 12 images that pass the filter <code>label = &#39;dog&#39; and number &lt; 12</code>"
    )
    assert shown in page.read_text()


def ids_of(index: Index) -> list[str]:
    return index.ids(np.arange(len(index)))


def test_paths_only_for_pipes(schn_ray: Run, gallery: Path) -> None:
    answer = schn_ray(
        "search", gallery / "index", "--id", "cat/004.png", "--id", "cat/005.png", "-k", 39, "-f"
    )
    paths = answer.out.splitlines()
    assert sorted(paths) == sorted(str(p) for p in (gallery / "photos").rglob("*.png"))


def test_pictures_as_a_page(schn_ray: Run, gallery: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    asked = ("search", gallery / "index", "--id", "cat/004.png", "-k", 5, "--html", page)
    assert schn_ray(*asked).code == 0
    assert page.read_text().count("<img") == 6
    code = "00" * 2
    assert schn_ray("search", gallery / "index", "--code", code, "--html", page).code == 0
    assert page.read_text().count("<img") == 10


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ((), "nothing to search for"),
        (("photo.png",), "--model RUN is missing"),
        (("--id", "none"), "'none' is not an id"),
        (("--code", "abc"), "not hexadecimal"),
        (("--code", "00"), "has 4 hexadecimal digits"),
        (("--code", "00ff"), "beyond the 12"),
        (("--queries", "codes"), "--queries CODES and --out DIR go together"),
        (("--code", "0000", "--rescore", "query"), "nothing to rescore with"),
        (("--id", "cat/004.png", "--rescore", "query"), "--model RUN is missing"),
        (("--id", "cat/004.png", "--rescore", "finely"), "'finely' is unknown; expected query"),
        (("--code", "0000", "--rescore", "features"), "nothing to rescore with"),
        (("--id", "cat/004.png", "--oversample", 3), "any other search is exact without it"),
        (("--id", "cat/004.png", "--rescore", "query", "--oversample", 3), "is exact without it"),
        (("--id", "a", "-r", 3, "--rescore", "relaxed", "--oversample", 3), "is times k"),
        (("--id", "cat/004.png", "--where", "label ="), "  label =\n         ^"),
        (("--id", "cat/004.png", "--where", "lable = 'cat'"), "did you mean 'label'?"),
        (("--id", "cat/004.png", "--where", "label = 1"), "label (text) cannot be compared with"),
    ],
)
def test_mistakes_are_explained(
    schn_ray: Run, gallery: Path, asked: tuple[str, ...], complaint: str
) -> None:
    answer = schn_ray("search", gallery / "index", *asked)
    assert (answer.code, complaint in answer.err) == (2, True), answer.err


def test_columns_by_name_are_described_and_changed(
    schn_ray: Run, gallery: Path, tmp_path: Path
) -> None:
    out, columns = tmp_path / "index", gallery / "columns.csv"
    build = ("index", gallery / "codes", "--out", out)
    answer = schn_ray(*build, "--columns", columns, "--columns-of", "label,nunber")
    assert (answer.code, "'nunber'; did you mean 'number'?" in answer.err) == (2, True), answer.err
    assert not out.exists()
    assert "name it with --columns" in schn_ray(*build, "--columns-of", "label").err
    answer = schn_ray(*build, "--columns", columns, "--columns-of", "label")
    assert "columns: label (text)\n  rows without columns: 0\n" in answer.out
    number = ("search", out, "--id", "cat/004.png", "--where", "number = 1", "-k", 5, "-f")
    assert (schn_ray(*number).code, "no column 'number'" in schn_ray(*number).err) == (2, True)
    assert schn_ray("index", out, "--columns", columns, "--columns-of", "number").code == 0
    assert len(schn_ray(*number).out.splitlines()) == 2
    assert json.loads(schn_ray("index", out, "--info", "--json").out)["columns"] == (
        "number (integer)"
    )


def test_an_index_is_built_described_changed_and_verified(
    schn_ray: Run, gallery: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    assert schn_ray("index", gallery / "codes", "--out", out).code == 0
    info = json.loads(schn_ray("index", out, "--info", "--json").out)
    assert (info["rows"], info["bits"], info["scan"]) == (40, 12, "all distinct codes")
    assert "are sound" in schn_ray("index", out, "--verify").out
    (tmp_path / "ids.txt").write_text("cat/001.png\ndog & co/002.png\n")
    answer = schn_ray("index", out, "--remove", tmp_path / "ids.txt")
    assert (answer.code, "rows: 38" in answer.out) == (0, True), answer.err
    answer = schn_ray("index", out, "--add", gallery / "codes")
    assert (answer.code, "38 rows repeat an id" in answer.err) == (2, True)
    assert schn_ray("index", out).code == 2
    refused = schn_ray("search", out, "--id", "cat/004.png", "--rescore", "features")
    assert (refused.code, "again with --with features" in refused.err) == (2, True)
    vectors = schn_ray("index", gallery / "codes", "--out", tmp_path / "v", "--with", "relaxed")
    assert vectors.code == 0, vectors.err
    assert json.loads(schn_ray("index", tmp_path / "v", "--info", "--json").out)["relaxed"] == 12
    assert schn_ray("index", out, "--out", out, "--info").code == 2


def test_duplicates_as_typed(schn_ray: Run, gallery: Path, tmp_path: Path) -> None:
    equal_codes = ("duplicates", gallery / "index", "-r", 2, "--verify", "none")
    answer = schn_ray(*equal_codes, "--out", tmp_path / "g", "--json")
    counted = json.loads(answer.out)
    assert (counted["rows"], counted["groups"] > 0) == (40, True)
    assert schn_ray("duplicates", gallery / "codes", "--out", tmp_path / "g").code == 0
    assert schn_ray("duplicates", gallery / "codes", "-r", -1, "--out", tmp_path / "g").code == 2
