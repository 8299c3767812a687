"""Files of finished directories: what differs from the manifest is never returned."""

import os
from pathlib import Path

import pytest

from schn_ray.core import artefacts as module
from schn_ray.core.artefacts import Artefact, DamagedArtefact, open_artefact, read_verified
from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.directories import new_directory


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    with new_directory(tmp_path / "out", "codes", {}, {}) as draft:
        (draft.path / "sub").mkdir()
        (draft.path / "a").write_bytes(bytes(range(256)) * 16)
        (draft.path / "sub" / "b").write_bytes(b"b")
    return open_artefact(tmp_path / "out", "codes")


def flip(file: Path, bit: int) -> None:
    """Flip one bit and keep the time of change."""
    data, status = bytearray(file.read_bytes()), file.stat()
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_was_written_is_read(artefact: Artefact) -> None:
    assert artefact.read("sub/b") == b"b"
    assert artefact.file("a").read_bytes() == bytes(range(256)) * 16


@pytest.mark.parametrize("bit", [0, 7, 9_999, 32_767])
def test_a_flipped_bit_is_refused(artefact: Artefact, bit: int) -> None:
    flip(artefact.path / "a", bit)
    for use in (artefact.read, artefact.file):
        with pytest.raises(DamagedArtefact, match="a differs from its manifest; make the codes"):
            use("a")


def test_what_was_right_is_checked_again_when_it_was_replaced(artefact: Artefact) -> None:
    file = artefact.file("a")
    other = file.with_name("other")
    other.write_bytes(b"x" * file.stat().st_size)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.rename(file)
    with pytest.raises(DamagedArtefact, match="differs"):
        artefact.file("a")


def test_missing_cut_and_foreign_files_are_refused(artefact: Artefact) -> None:
    (artefact.path / "sub" / "b").unlink()
    (artefact.path / "a").write_bytes(b"short")
    (artefact.path / "c").write_bytes(b"new")
    for use in (artefact.read, artefact.file):
        with pytest.raises(DamagedArtefact, match="b is missing"):
            use("sub/b")
        with pytest.raises(DamagedArtefact, match="a differs"):
            use("a")
        with pytest.raises(DamagedArtefact, match="c is not in its manifest"):
            use("c")


def test_all_files_are_checked_at_once_and_once(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(module, "sha256_file", counted)
    artefact.check()
    artefact.check(["a"])
    artefact.file("a")
    assert sorted(hashed) == ["a", "b"]
    artefact.check(anew=True)
    assert sorted(hashed) == ["a", "a", "b", "b"]
    flip(artefact.path / "sub" / "b", 0)  # with its time kept
    for use in (artefact.check, lambda: artefact.check(["sub/b"])):
        with pytest.raises(DamagedArtefact, match="b differs from its manifest; make the codes"):
            use()
    artefact.check(["a"])
    artefact.check_sizes()


def test_a_file_that_is_changed_while_it_is_hashed_is_hashed_again(
    artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(path: Path) -> str:
        sha256 = sha256_file(path)
        flip(path, 9)
        return sha256

    monkeypatch.setattr(module, "sha256_file", changed)
    artefact.file("a")
    monkeypatch.undo()
    with pytest.raises(DamagedArtefact, match="a differs"):
        artefact.file("a")


def test_sizes_find_what_is_missing_or_cut(artefact: Artefact) -> None:
    (artefact.path / "a").write_bytes(b"short")
    with pytest.raises(DamagedArtefact, match="a differs from its manifest: 5 bytes, expected"):
        artefact.check_sizes()
    (artefact.path / "a").unlink()
    with pytest.raises(DamagedArtefact, match="a is missing"):
        artefact.check_sizes()


def test_bytes_of_any_place_are_compared_with_a_hash(artefact: Artefact) -> None:
    location, sha256 = str(artefact.path / "sub" / "b"), artefact.manifest.files["sub/b"]
    assert read_verified(location, sha256, "codes") == b"b"
    flip(artefact.path / "sub" / "b", 3)
    with pytest.raises(DamagedArtefact, match="b differs from its manifest; make the codes again"):
        read_verified(location, sha256, "codes")
    with pytest.raises(DamagedArtefact, match="none is missing"):
        read_verified(location.replace("sub/b", "none"), sha256, "codes")
