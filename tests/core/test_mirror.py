"""Directories at a URI: of two that write one, the other is refused or goes on after it."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow.fs import FileSelector

from schn_ray.core.directories import resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.cache import CACHE
from schn_ray.core.storage.files import filesystem_of, join, kind_at, read_file
from schn_ray.core.storage.mirror import Mirror, open_output


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return f"memory://{uuid.uuid4().hex}/out"


def machine(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as if on another machine, which has a cache of its own."""
    monkeypatch.setenv(CACHE, str(tmp_path / f"cache-{number}"))


def write(mirror: Mirror, text: str) -> None:
    with resumable_directory(mirror.local, "codes", {}, {}) as writer:
        (writer.path / "part").write_text(text)
        mirror.send()


def write_while(uri: str, text: str, meanwhile: Callable[[], None]) -> None:
    with open_output(uri) as mirror, resumable_directory(mirror.local, "codes", {}, {}) as writer:
        mirror.send()
        (writer.path / "part").write_text(text)
        meanwhile()


def names(uri: str) -> set[str]:
    filesystem, path = filesystem_of(uri)
    return {info.base_name for info in filesystem.get_file_info(FileSelector(path))}


def test_a_writer_leaves_no_mark(uri: str) -> None:
    with open_output(uri) as mirror:
        write(mirror, "a")
        assert names(uri) == {"part", "request.json", ".writer"}
    assert names(uri) == {"part", MANIFEST}


def test_of_two_machines_the_first_is_refused_at_its_next_upload(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> None:
        machine(2, tmp_path, monkeypatch)
        with open_output(uri) as mirror:
            write(mirror, "second")
        machine(1, tmp_path, monkeypatch)

    machine(1, tmp_path, monkeypatch)
    with pytest.raises(SchnRayError, match=r"another process has begun to write .* since"):
        write_while(uri, "first", meanwhile)
    assert read_file(join(uri, "part")) == b"second"
    assert kind_at(join(uri, MANIFEST)) == "file"


def test_on_one_machine_the_second_is_refused_from_the_first_moment_on(uri: str) -> None:
    with open_output(uri) as first:
        # between the fetch of the manifest and the lock of the directory
        with (
            pytest.raises(SchnRayError, match=f"another process is writing {uri}; wait"),
            open_output(uri),
        ):
            pass
        write(first, "first")
    assert read_file(join(uri, "part")) == b"first"
