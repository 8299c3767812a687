"""Locks between processes, with real processes."""

import fcntl
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked

SPAWN = multiprocessing.get_context("spawn")


def _hold(folder: Path, entered) -> None:  # type: ignore[no-untyped-def]
    with locked(folder / ".lock", folder):
        entered.set()
        time.sleep(60)


def _count(folder: Path, times: int) -> None:
    file = folder / "count"
    for _ in range(times):
        with locked(folder / ".lock", folder, wait_s=60):
            count = int(file.read_text())
            time.sleep(0.001)  # long enough for another process to read the same number
            file.write_text(str(count + 1))


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    entered = SPAWN.Event()
    first = SPAWN.Process(target=_hold, args=(tmp_path, entered))
    first.start()
    try:
        assert entered.wait(60)
        for wait_s in (0.0, 0.3):
            with (
                pytest.raises(SchnRayError, match=r"another process is writing .*; wait for it"),
                locked(tmp_path / ".lock", tmp_path, wait_s),
            ):
                pass
    finally:
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        first.join()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path / ".lock", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_comes_and_goes_still_excludes(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    writers = [SPAWN.Process(target=_count, args=(tmp_path, 5)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "15"


def test_the_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    lock = tmp_path / "new folder" / ".lock"
    with pytest.raises(ValueError, match="mine"), locked(lock, tmp_path):
        raise ValueError("mine")
    with locked(lock, tmp_path):
        pass
    assert not lock.exists()


def test_the_lock_file_is_removed_before_the_lock_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file that is removed may be the next process's."""
    removed = []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        removed.append(path.name)
        os.unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with locked(tmp_path / ".lock", tmp_path):
            pass
    assert removed == [".lock"]
