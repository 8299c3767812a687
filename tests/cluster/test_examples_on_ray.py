"""The examples that need Ray, on small data and with tiny settings."""

import re
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.examples import ONE, SMALL, run_example
from support.image_files import write_tree
from support.processes import free_port
from support.trials import takes_minutes

import schn_ray

pytestmark = pytest.mark.usefixtures("cluster")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("examples") / "photos", {"cat": 16, "dog": 16})


def test_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_example(monkeypatch, "on_a_cluster.py", photos, tmp_path, *ONE)
    printed = capsys.readouterr().out
    assert re.search(r"^mAP \d", printed, re.MULTILINE)
    assert f"{tmp_path}/matches: matches, finished" in printed
    assert schn_ray.open_store(tmp_path / "store").manifest.counts["rows"] == 32


@takes_minutes
def test_tune(
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = [setting for setting in SMALL if "network" not in setting]
    run_example(monkeypatch, "tune.py", photos, tmp_path, 2, *tiny)
    printed = capsys.readouterr().out
    assert "2 trials: 2 complete" in printed
    assert re.search(r"^mAP \d", printed, re.MULTILINE)


def test_search_service(monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path) -> None:
    from schn_ray.cluster import serve as serve_module

    store = schn_ray.prepare(photos, tmp_path / "store")
    run = schn_ray.train(store, tmp_path / "run", settings=ONE)
    index = schn_ray.build_index(schn_ray.encode(photos, run, tmp_path / "codes"), tmp_path / "i")
    port, pages = free_port(), []

    def visit(seconds: float) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            pages.append(page.read())
        raise KeyboardInterrupt

    # it waits for Ctrl-C: a visitor comes first
    monkeypatch.setattr(serve_module, "time", SimpleNamespace(sleep=visit))
    with pytest.raises(KeyboardInterrupt):
        run_example(monkeypatch, "search_service.py", index, run, port)
    assert b"<html" in pages[0]
