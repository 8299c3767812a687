"""Files of finished directories: what differs from the manifest is never returned."""

import os
from pathlib import Path

import pytest

from schn_ray.core.artefacts import Artefact, DamagedArtefact, open_artefact
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
