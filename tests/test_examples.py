"""The examples that need no Ray run as they are, on small data and with tiny settings."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.examples import EXAMPLES, ONE, run_example
from support.image_files import write_tree


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", {"cat": 12, "dog": 12})


def test_each_is_short_and_says_how_to_run_it() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"own_method.py"}  # no program
    assert names == {
        "embeddings_to_search.py",
        "quickstart.py",
        "own_photos.py",
        "train_and_search.py",
        "tune.py",
        "on_a_cluster.py",
        "search_service.py",
    }
    for name in names:
        text = (EXAMPLES / name).read_text()
        assert len(text.splitlines()) < 40
        assert f"python examples/{name}" in text
        # what a user sees is what the package offers
        assert set(re.findall(r"^(?:from|import) (schn_ray\S*)", text, re.MULTILINE)) == {
            "schn_ray"
        }


def test_embeddings_to_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(60, 16)).astype("f4"))
    run_example(monkeypatch, "embeddings_to_search.py", tmp_path / "vectors.npy", tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.match(r" +\d+  \d+ ", line)]) == 5


def test_quickstart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, "quickstart.py", tmp_path / "out", *ONE)
    printed = capsys.readouterr().out
    assert "store: store, finished" in printed
    assert re.search(r"^mAP \d\.\d+", printed, re.MULTILINE)
    assert len(re.findall(r"^ +\d+  digit-\d{4}  digits#\d+$", printed, re.MULTILINE)) == 5


def test_own_photos(
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "cat" / "copy.png").write_bytes((photos / "cat" / "000.png").read_bytes())
    out = tmp_path / "out"
    run_example(monkeypatch, "own_photos.py", photos, out, *ONE)
    printed = capsys.readouterr().out
    assert "25: 25 good, 0 bad" in printed
    assert (out / "check.html").is_file()
    assert (out / "report.html").is_file()
    assert re.search(r"duplicates.parquet: [1-9]\d* groups", printed)


def test_train_and_search(
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = photos / "dog" / "003.png"
    run_example(monkeypatch, "train_and_search.py", photos, tmp_path / "out", query, *ONE)
    printed = capsys.readouterr().out
    assert re.findall(r"^(\d+) bits: ", printed, re.MULTILINE)[0] == "0"
    assert "rows: 23" in printed
