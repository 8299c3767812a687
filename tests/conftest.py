"""Fixtures that several test modules share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support.image_files import write_tree
from support.users import Answer, Run

from schn_ray import cli

# no test is timed: what is quick on one machine is slow on another
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered between runs is not written into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCHN_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def image_tree(tmp_path: Path) -> Path:
    """Three classes of ten small PNGs: ``cat``, ``dog``, ``owl``."""
    return write_tree(tmp_path / "images", {"cat": 10, "dog": 10, "owl": 10})


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray for the whole test session: starting it takes seconds."""
    from schn_ray.cluster.session import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session():
            yield


@pytest.fixture
def schn_ray(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command, run in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["schn-ray", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return Answer(int(stopped.value.code or 0), *capfd.readouterr())

    return run
