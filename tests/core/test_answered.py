"""A request that was answered is known again, until anything that it depends on has changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schn_ray.core import answered
from schn_ray.core.answered import AnsweredRequest, answered_request


def request(root: Path, bits: int = 8) -> AnsweredRequest | None:
    return answered_request(
        "train", str(root / "run"), {"bits": bits}, [str(root / "store"), None], [root / "my.yaml"]
    )


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run and its store, finished and noted; their manifests are only text."""
    monkeypatch.setenv("SCHN_RAY_CACHE", str(tmp_path / "cache"))
    for name in ("run", "store"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    (tmp_path / "my.yaml").write_text("seed: 1\n")
    first = request(tmp_path)
    assert first is not None
    assert not first.is_finished()
    first.remember()
    assert first.is_finished()
    return tmp_path


CHANGES: dict[str, Callable[[Path], object]] = {
    "the run": lambda root: (root / "run/manifest.json").write_text("other"),
    "the run, begun again": lambda root: (root / "run/request.json").write_text("{}"),
    "the run, gone": lambda root: (root / "run/manifest.json").unlink(),
    "the store": lambda root: (root / "store/manifest.json").write_text("other"),
    "the file of settings": lambda root: (root / "my.yaml").write_text("seed: 2\n"),
    "the note": lambda root: next((root / "cache/answered").iterdir()).write_text("x"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_noticed(what: str, finished: Path) -> None:
    CHANGES[what](finished)
    again = request(finished)
    assert again is not None
    assert not again.is_finished()


def test_other_options_and_other_code_are_noticed(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other = request(finished), request(finished, bits=16)
    assert same is not None
    assert other is not None
    assert (same.is_finished(), other.is_finished()) == (True, False)
    monkeypatch.setattr(answered, "_PACKAGE", finished)  # other files than ours
    later = request(finished)
    assert later is not None
    assert not later.is_finished()


def test_what_is_compared_each_time(finished: Path) -> None:
    out, store = str(finished / "run"), str(finished / "store")
    assert answered_request("train", "s3://bucket/run", {}, [store]) is None
    assert answered_request("train", out, {}, ["s3://bucket/store"]) is None
    assert answered_request("train", out, {"method": "./mine.py:Mine"}, [store]) is None
    (finished / "my.yaml").write_text("method: {name: ./mine.py:Mine}\n")
    assert request(finished) is None
    (finished / "store" / "manifest.json").unlink()
    assert answered_request("train", out, {}, [store]) is None
