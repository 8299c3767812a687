"""What killed commands leave is listed while nobody writes it, and nothing else is."""

from pathlib import Path

import pytest
from support.faults import dies_before, ends

from schn_ray.core.directories import new_directory
from schn_ray.core.leftovers import cache_leftovers, leftovers
from schn_ray.core.locks import locked
from schn_ray.core.storage.cache import cache_folder


def write(_: Path, out: Path) -> None:
    with new_directory(out / "codes", "codes", {}, {}) as draft:
        (draft.path / "data").write_bytes(b"x" * 1000)
        (draft.path / "more").write_bytes(b"")


def test_what_a_kill_leaves_is_listed_until_the_same_call(tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    out.mkdir()
    assert ends(write, tmp_path, out, dies_before(5)).code == 9
    for folder in (out, tmp_path):
        left = leftovers(folder)
        assert {item.path.name for item in left} == {".codes.partial", ".codes.lock"}
        assert sum(item.size for item in left) == 1000
    write(tmp_path, out)
    assert leftovers(out) == []
    assert leftovers(tmp_path / "nowhere") == []


def test_what_is_being_written_is_not_listed(tmp_path: Path) -> None:
    with new_directory(tmp_path / "codes", "codes", {}, {}) as draft:
        (draft.path / "data").write_text("x")
        assert leftovers(tmp_path) == []
    (tmp_path / "codes" / "data").unlink()
    (tmp_path / "codes" / "data").mkdir()
    (tmp_path / "codes" / "data" / "part.parquet.0.partial").write_text("x")
    with locked(tmp_path / "codes" / ".lock", tmp_path):
        assert leftovers(tmp_path) == []
    assert [item.path.name for item in leftovers(tmp_path)] == ["part.parquet.0.partial"]


def test_unfinished_copies_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHN_RAY_CACHE", str(tmp_path))
    copy, output = cache_folder() / "copies" / "c0py", cache_folder() / "unfinished" / "0utput"
    for folder in (copy, output):
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"12")
    assert {item.path for item in cache_leftovers()} == {copy, output}
    (output / "data").unlink()
    (output / "manifest.json").write_text("{}")
    with locked(copy.with_name("c0py.lock"), copy):
        assert cache_leftovers() == []
    (copy / "manifest.json").write_text("{}")
    assert cache_leftovers() == []
