"""Files that cannot be written are named, with what to do."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from schn_ray.core.atomic_files import CannotWrite, FileWriter, write_json, writing


class FullDevice(FileWriter):
    """Writes to /dev/full, where every write fails for want of room."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file.close()
        self._file = open("/dev/full", "wb")  # noqa: SIM115


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    yield folder
    folder.chmod(0o700)


def test_a_full_disk_is_told_with_the_file_s_name(tmp_path: Path) -> None:
    file = FullDevice(tmp_path / "codes")
    file.write(b"buffered")
    with pytest.raises(CannotWrite, match=r"codes: No space left on device\. Make room"):
        file.close()
    with (
        pytest.raises(CannotWrite, match="codes: No space left"),
        FullDevice(tmp_path / "codes") as big,
    ):
        big.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "larger quota"),
        (errno.EROFS, "that can be written"),
        (errno.EACCES, "Get the right to write"),
        (errno.EFBIG, "ulimit"),
        (errno.ENAMETOOLONG, "Solve that"),
    ],
)
def test_each_reason_has_its_advice(number: int, advice: str, tmp_path: Path) -> None:
    expected = f"cannot write {tmp_path}/x: {os.strerror(number)}. "
    with (
        pytest.raises(CannotWrite, match=f"{re.escape(expected)}.*{advice}.*same command again"),
        writing(tmp_path / "x"),
    ):
        raise OSError(number, os.strerror(number))


def test_an_error_without_a_number_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"x: 9 requested and 3 written\. Solve that"):  # noqa: SIM117
        with writing(tmp_path / "x"):
            raise OSError("9 requested and 3 written")


def test_an_error_that_names_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"cannot write /other: "), writing(tmp_path / "x"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/other")


def test_json_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match=r"cannot write .*file/x\.json.*: Not a directory"):
        write_json(tmp_path / "file" / "x.json", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_missing_right(closed_folder: Path) -> None:
    with pytest.raises(CannotWrite, match=r"Permission denied\. Get the right"):
        write_json(closed_folder / "x.json", {})
