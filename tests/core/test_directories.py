import json
import multiprocessing
from contextlib import suppress
from pathlib import Path

import pytest

from schn_ray.core.artefacts import Artefact
from schn_ray.core.directories import AlreadyDone, new_directory, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, read_manifest

BOTH = pytest.mark.parametrize("directory", [new_directory, resumable_directory])


def make(directory, path: Path, bits: int = 8, content: str = "hello") -> None:  # type: ignore[no-untyped-def]
    with directory(path, "codes", {"bits": bits}, {"model": "m"}) as draft:
        (draft.path / "data").write_text(content)
        draft.counts["rows"] = 1


def interrupt(directory, path: Path, files: tuple[str, ...] = ("first",)) -> None:  # type: ignore[no-untyped-def]
    with directory(path, "codes", {"bits": 8}, {"model": "m"}) as draft:
        for name in files:
            (draft.path / name).write_text("done")
        raise KeyboardInterrupt


@BOTH
def test_a_finished_directory_says_what_it_is(directory, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make(directory, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out", "codes")
    assert manifest.config == {"bits": 8}
    assert manifest.counts == {"rows": 1}
    assert list(manifest.files) == ["data"]
    assert "schn-ray" in manifest.versions
    Artefact(tmp_path / "out", manifest).check()
    assert {p.name for p in tmp_path.rglob("*")} == {"out", "data", MANIFEST}


@BOTH
def test_the_same_request_again_is_done_and_another_is_refused(directory, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make(directory, tmp_path / "out")
    with pytest.raises(AlreadyDone):
        make(directory, tmp_path / "out")
    with pytest.raises(SchnRayError, match=r"config\.bits: 8 there, 16 now"):
        make(directory, tmp_path / "out", bits=16)


def test_equal_content_has_an_equal_fingerprint(tmp_path: Path) -> None:
    prints = []
    for name, content in [("a", "x"), ("b", "x"), ("c", "y")]:
        make(new_directory, tmp_path / name, content=content)
        prints.append(read_manifest(tmp_path / name, "codes").fingerprint)
    assert prints[0] == prints[1] != prints[2]


@BOTH
def test_something_else_in_the_way_is_left_alone(directory, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    precious = tmp_path / "out" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(SchnRayError, match="holds something that schn-ray did not make"):
        make(directory, tmp_path / "out")
    with pytest.raises(SchnRayError, match="is a file"):
        make(directory, precious)
    assert precious.read_text() == "years of work"


def test_a_failed_new_directory_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(new_directory, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_resumable_directory_without_any_work_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(resumable_directory, tmp_path / "out", files=())
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "half").write_text("")
    make(new_directory, tmp_path / "out")
    assert not (tmp_path / "out" / "half").exists()


@BOTH
@pytest.mark.parametrize("left", ["request.json.partial", ".lock", ".seen-0123"])
def test_killed_before_its_request_was_written(directory, left: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / left).write_text("{")
    make(directory, tmp_path / "out")
    assert read_manifest(tmp_path / "out", "codes").counts == {"rows": 1}


def test_killed_while_its_manifest_was_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(resumable_directory, tmp_path / "out", ("data", "manifest.json.partial"))
    make(resumable_directory, tmp_path / "out")
    make(resumable_directory, tmp_path / "undisturbed")
    manifest = read_manifest(tmp_path / "out", "codes")
    Artefact(tmp_path / "out", manifest).check()
    assert manifest == read_manifest(tmp_path / "undisturbed", "codes")


def test_a_failed_resumable_directory_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        interrupt(resumable_directory, out)
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "codes")
    with pytest.raises(SchnRayError, match="another request"):
        make(resumable_directory, out, bits=9)
    make(resumable_directory, out)
    assert set(read_manifest(out, "codes").files) == {"first", "data"}


def _hold(directory_name: str, path: Path, entered, leave) -> None:  # type: ignore[no-untyped-def]
    directory = {"new": new_directory, "resumable": resumable_directory}[directory_name]
    with directory(path, "codes", {"bits": 8}, {"model": "m"}):
        entered.set()
        leave.wait(30)


@pytest.mark.parametrize("name", ["new", "resumable"])
def test_a_second_writer_is_refused(name: str, tmp_path: Path) -> None:
    directory = {"new": new_directory, "resumable": resumable_directory}[name]
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(name, tmp_path / "out", entered, leave))
    first.start()
    try:
        assert entered.wait(30)
        with pytest.raises(SchnRayError, match=r"another process is writing .*/out;"):
            make(directory, tmp_path / "out")
    finally:
        leave.set()
        first.join()
    assert first.exitcode == 0
    with pytest.raises(AlreadyDone):
        make(directory, tmp_path / "out")


def test_wrong_directories_are_named(tmp_path: Path) -> None:
    make(new_directory, tmp_path / "out")
    with pytest.raises(SchnRayError, match="wanted an index directory, but there is none"):
        read_manifest(tmp_path / "nowhere", "index")
    with pytest.raises(SchnRayError, match="is a codes directory; wanted a run"):
        read_manifest(tmp_path / "out", "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SchnRayError, match="has no manifest"):
        read_manifest(tmp_path / "empty", "codes")
    file = tmp_path / "out" / MANIFEST
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole | {"format": 99}))
    with pytest.raises(SchnRayError, match="format 99"):
        read_manifest(tmp_path / "out", "codes")
    for damaged in ("", "{", "[]", '{"format": 1}', json.dumps(whole | {"extra": 1})):
        file.write_text(damaged)
        with pytest.raises(SchnRayError, match="damaged"):
            read_manifest(tmp_path / "out", "codes")


def test_changed_and_missing_files_are_found(tmp_path: Path) -> None:
    make(new_directory, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out", "codes")
    (tmp_path / "out" / "data").write_text("hellp")
    with pytest.raises(SchnRayError, match="differs from its manifest"):
        Artefact(tmp_path / "out", manifest).check()
    (tmp_path / "out" / "data").unlink()
    with pytest.raises(SchnRayError, match="is missing"):
        Artefact(tmp_path / "out", manifest).check()


@pytest.mark.parametrize(
    "edit",
    [
        {"counts": {"rows": 2}},
        {"config": {"bits": 9}},
        {"made_from": {}},
        {"files": {}},
        {"sizes": {}},
        {"versions": {}},
        {"fingerprint": "0" * 64},
        {"digest": "0" * 64},
        {"digest": ""},
    ],
    ids=str,
)
def test_an_edited_manifest_is_refused(edit: dict[str, object], tmp_path: Path) -> None:
    make(new_directory, tmp_path / "out")
    file = tmp_path / "out" / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | edit))
    for use in (
        lambda: read_manifest(tmp_path / "out", "codes"),
        lambda: make(new_directory, tmp_path / "out"),
        lambda: make(resumable_directory, tmp_path / "out"),
    ):
        with pytest.raises(SchnRayError, match=r"manifest\.json is damaged or was edited"):
            use()


def test_no_flipped_bit_of_a_manifest_is_read(tmp_path: Path) -> None:
    make(new_directory, tmp_path / "out")
    file, sound = tmp_path / "out" / MANIFEST, read_manifest(tmp_path / "out", "codes")
    content = file.read_bytes()
    for byte in range(len(content)):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << byte % 8
        file.write_bytes(damaged)
        with suppress(SchnRayError):
            # white space may differ
            assert read_manifest(tmp_path / "out", "codes") == sound


@BOTH
@pytest.mark.parametrize("names", [("request.json", ".lock"), (".lock",), ("request.json",)])
def test_what_a_kill_at_the_end_left_is_cleared_by_the_same_call(  # type: ignore[no-untyped-def]
    directory, names: tuple[str, ...], tmp_path: Path
) -> None:
    make(directory, tmp_path / "out")
    left = (
        [tmp_path / "out" / name for name in names]
        if directory is resumable_directory
        else [tmp_path / ".out.lock"]
    )
    if directory is new_directory:
        (tmp_path / ".out.partial").mkdir()
    for path in left:
        path.write_text("{}")
    with pytest.raises(AlreadyDone):
        make(directory, tmp_path / "out")
    assert {p.name for p in tmp_path.rglob("*")} == {"out", "data", MANIFEST}
