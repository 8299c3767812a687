"""``build``: from photos to a search page, and again when photos come and go."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.faults import Verb, check_kills
from support.image_files import encode_image, write_tree
from support.trials import on_trial
from support.users import Run

import schn_ray as face
from schn_ray.core.errors import SchnRayError
from schn_ray.data.splits.protocols import ROLES

# the features of an untrained network; what is tested is the chain
OPTIONS: dict[str, Any] = {"backbone": "small", "weights": "none", "bits": 16}
SETTINGS = {
    "schedule.iterations": 1,
    "schedule.epochs": 1,
    "method.semantic_dim": 16,
    "method.latent_dim": 16,
}


@pytest.fixture(autouse=True)
def _quick_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a page without its thirty diagrams; ``built`` has a whole one."""

    def write_page(run: object, out: Path, **_: object) -> None:
        out.write_text(f"a page of {run}")

    monkeypatch.setattr("schn_ray.cli.album.stages.write_report", write_page)


def build(photos: Path, album: Path, **options: Any) -> Any:
    return face.build(photos, album, **OPTIONS | {"settings": SETTINGS} | options)


def roles_of(album: Any) -> dict[str, set[str]]:
    store = face.open_store(Path(album) / "store")
    return {role: set(store.ids.take(pa.array(store.rows(role))).to_pylist()) for role in ROLES}


def codes_of(album: Any) -> dict[str, bytes]:
    """Return id -> code of every row of the index, by the index itself."""
    index = face.open_index(Path(album) / "index")
    rows = np.arange(len(index))
    return dict(zip(index.ids(rows), map(bytes, index.codes(rows)), strict=True))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled ``photos`` and their ``album``."""
    folder = tmp_path_factory.mktemp("build")
    write_tree(folder / "photos", {"cat": 60, "dog": 60})
    (folder / "photos/dog/broken.png").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        build(Path("photos"), Path("album"))  # as a user types it
    return folder


def test_an_album_is_searched_served_and_reported_by_its_name(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schn_ray: Run
) -> None:
    album, photo = built / "album", built / "photos/cat/007.png"
    answer = schn_ray("search", album, photo, "-k", 3, "--json")
    assert answer.code == 0, answer.err
    (result,) = json.loads(answer.out)
    assert (result["hits"][0]["distance"], len(result["hits"])) == (0, 3)
    assert "cat/007.png" in [hit["id"] for hit in result["hits"] if not hit["distance"]]
    assert result["hits"][0]["uri"].startswith(str(built / "photos"))  # not a copy in the store
    groups = schn_ray("duplicates", album, "--out", tmp_path / "groups.parquet", "--json")
    assert json.loads(groups.out)["rows"] == 120
    converted = schn_ray("convert", album, "--to", "parquet", "--out", tmp_path / "converted")
    assert (converted.code, "rows: 120" in converted.out) == (0, True), converted.err
    labels = pq.read_table(tmp_path / "converted/codes.parquet")["labels"].to_pylist()
    assert sorted(labels) == [["cat"]] * 60 + [["dog"]] * 60
    again = schn_ray("evaluate", album)
    assert (again.code, "is finished already" in again.err) == (0, True)
    shutil.copytree(album / "evaluation", tmp_path / "other")
    compared = schn_ray("compare", album, tmp_path / "other")
    assert (compared.code, "2 runs" in compared.out or "queries" in compared.out) == (0, True)
    with pytest.raises(SchnRayError, match=r"album is no run, but .*/album/run is one: name that"):
        face.load(album)
    reported: list[Any] = []
    monkeypatch.setattr("schn_ray.report.runs.report_runs", lambda *args: reported.append(args))
    assert schn_ray("report", album, "--out", tmp_path / "page.html").code == 0
    assert reported[0][:2] == ([f"{album}/run"], [f"{album}/evaluation"])
    served: list[Any] = []
    fake = SimpleNamespace(serve_locally=lambda *args: served.append(args[:2]))
    monkeypatch.setitem(sys.modules, "schn_ray.retrieval.server.local", fake)
    assert schn_ray("serve", album).code == 0
    assert served == [(f"{album}/index", f"{album}/run")]
    assert "--model RUN is missing" in schn_ray("serve", album / "index").err


def test_the_beginning_says_what_it_found_and_what_it_will_do(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schn_ray.cli.album.stages.AlbumStages.run", lambda _: None)
    build(built / "photos", tmp_path / "album")
    text = capsys.readouterr().err
    assert "121 images (folder); of 16 that were looked at, " in text
    assert "have labels" in text
    assert re.search(r"reading them will take about \d+ s of one process", text)
    assert "compute features once with small, train schn-plus on them" in text


def test_the_end_says_how_good_it_is_and_what_comes_next(built: Path) -> None:
    album = build(built / "photos", built / "album")
    assert album.unchanged
    text = album.text()
    assert f"schn-ray serve {built}/album\n  schn-ray search {built}/album photo.jpg" in text
    assert "120 images, 2 classes; 16 bits each, by schn-plus on small" in text
    assert "1 images cannot be used" in text
    assert f"{album.verdict.grade}: " in text
    assert (built / "album/report.html").read_text().startswith("<!doctype html>")


def test_the_same_call_takes_in_what_changed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built / "photos", tmp_path / "photos", copy_function=shutil.copy2)
    album = build(tmp_path / "photos", tmp_path / "album")
    before, roles, page = codes_of(album), roles_of(album), tmp_path / "album/report.html"
    for number in range(5):
        (tmp_path / f"photos/cat/{number:03}.png").unlink()
    for number in range(9):
        (tmp_path / f"photos/dog/new{number}.png").write_bytes(encode_image(5000 + number))
    (tmp_path / "photos/dog/030.png").write_bytes(encode_image(7000))
    embedded: list[int] = []
    record_embedded(monkeypatch, embedded)
    page.write_text("old")
    album = build(tmp_path / "photos", tmp_path / "album")
    assert sum(embedded) == 10
    assert not album.unchanged
    assert {name: album.counts[name] for name in ("new", "changed", "gone")} == {
        "new": 9,
        "changed": 1,
        "gone": 5,
    }
    after = codes_of(album)
    assert len(after) == 120 + 9 - 5
    same = set(before) & set(after) - {"dog/030.png"}
    assert {id: after[id] for id in same} == {id: before[id] for id in same}
    assert page.read_text() != "old"
    assert album.figures.store == album.store.fingerprint
    trained = roles["train"] | roles["validation"]
    assert not roles_of(album)["query"] & trained
    (result,) = face.search(album, [tmp_path / "photos/dog/new3.png"], k=1)
    assert result.hits[0].distance == 0
    (result,) = face.search(album, id="dog/new3.png", k=200, where="label = 'cat'")
    assert {hit.id for hit in result.hits} == {id for id in after if id.startswith("cat/")}
    assert build(tmp_path / "photos", tmp_path / "album").unchanged


def record_embedded(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> None:
    """Count the images that pass a backbone."""
    from schn_ray.models.embed import Embedder

    vectors = Embedder.vectors

    def counted(self: Embedder, views: Any) -> Any:
        counts.append(len(views))
        return vectors(self, views)

    monkeypatch.setattr(Embedder, "vectors", counted)


@pytest.mark.slow
def test_photos_without_labels(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(150):
        (tmp_path / f"photos/{number:03}.png").write_bytes(encode_image(number))
    album = build(tmp_path / "photos", tmp_path / "album", settings=None)
    assert "150 images, no labels; 16 bits each, by itq on small" in album.text()
    assert "of 10 nearest by the features are among the first 10 results" in album.text()
    assert face.open_index(Path(album) / "index").kinds == {"folder": "text"}


@pytest.mark.slow
def test_embeddings_need_no_backbone(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(200, 24)).astype(np.float32)
    table = {"id": [f"{n}" for n in range(200)], "embedding": list(X)}
    pq.write_table(pa.table(table), tmp_path / "embeddings.parquet")
    album = face.build(tmp_path / "embeddings.parquet", tmp_path / "album", bits=16)
    assert "200 embeddings, no labels; 16 bits each, by itq\n" in album.text()
    assert not (tmp_path / "album/features").exists()
    np.save(tmp_path / "query.npy", X[7])
    assert f"schn-ray search {tmp_path}/album query.npy" in album.text()
    (result,) = face.search(album, [tmp_path / "query.npy"], k=1)
    assert result.hits[0].distance == 0
    with pytest.raises(SchnRayError, match="no images: leave --backbone out"):
        face.build(tmp_path / "embeddings.parquet", tmp_path / "other", backbone="small")


@pytest.mark.slow
def test_a_backbone_that_is_trained_needs_no_features(tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 60, "dog": 60})
    album = build(photos, tmp_path / "album", fine_tune=True)
    assert not (tmp_path / "album/features").exists()
    assert not album.run.manifest.config["backbone"]["frozen"]
    before = codes_of(album)
    (photos / "cat/003.png").unlink()
    assert codes_of(build(photos, tmp_path / "album")) == {
        id: code for id, code in before.items() if id != "cat/003.png"
    }


def test_what_cannot_be_built_leaves_nothing(built: Path, tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match=r"no backbone 'smal'.*did you mean 'small'"):
        build(built / "photos", tmp_path / "album", backbone="smal")
    with pytest.raises(SchnRayError, match="no method 'schn-pls'"):
        build(built / "photos", tmp_path / "album", method="schn-pls")
    with pytest.raises(SchnRayError, match=r"did you mean 'schedule.iterations'"):
        build(built / "photos", tmp_path / "album", settings={"schedule.iteration": 1})
    assert not (tmp_path / "album").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SchnRayError, match="did not make; name a new or empty"):
        build(built / "photos", tmp_path)


def test_other_options_are_refused(built: Path) -> None:
    with pytest.raises(SchnRayError, match=r"built with other options.*\n.*bits: 16 there, 32 now"):
        build(built / "photos", built / "album", bits=32)
    with pytest.raises(SchnRayError, match="source: "):
        build(built / "photos/cat", built / "album")
    assert face.build(built / "photos", built / "album").unchanged  # what is not named is as before


def album_of(root: Path, out: Path) -> None:
    build(root / "photos", out / "album")


def content(out: Path) -> object:
    """What must be the same after a kill; and an album that is finished has nothing left to do."""
    store = face.open_store(out / "album/store")
    figures = json.loads((out / "album/evaluation/metrics.json").read_text())
    assert (out / "album/report.html").is_file()
    return codes_of(out / "album"), store.ids.to_pylist(), figures["map"], figures["queries_sha256"]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # processes that fork have one
    write_tree(tmp_path / "photos", {"cat": 60, "dog": 60})
    verb = Verb(album_of, content=content)
    assert check_kills(verb, tmp_path, tmp_path, every=on_trial(1, 70)) > 1


@pytest.mark.slow
def test_killed_while_it_takes_in_changes_it_goes_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    photos = write_tree(tmp_path / "photos", {"cat": 60, "dog": 60})
    album_of(tmp_path, tmp_path)
    for number in range(9):
        (photos / f"dog/new{number}.png").write_bytes(encode_image(5000 + number))
        (photos / f"cat/{number:03}.png").unlink()
    verb = Verb(album_of, changes=("album",), content=content)
    assert check_kills(verb, tmp_path, tmp_path, every=on_trial(1, 70)) > 1


def test_an_album_can_be_moved(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "album", tmp_path / "moved")
    album = build(built / "photos", tmp_path / "moved")
    assert codes_of(album) == codes_of(built / "album")
    assert build(built / "photos", tmp_path / "moved").unchanged
    photos = shutil.copytree(built / "photos", tmp_path / "photos")  # with their times
    assert codes_of(build(photos, album)) == codes_of(built / "album")
    (hit,) = face.search(album, id="cat/002.png", k=1)[0].hits
    assert hit.uri == str(photos / hit.id)
    recorded = json.loads((tmp_path / "moved/album.json").read_text())
    assert recorded["options"]["source"] == str(photos)
    assert build(photos, album).unchanged
