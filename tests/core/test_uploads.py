"""Uploads that a writer does not wait for: in order, of one moment, and nothing claimed before."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from schn_ray.core.storage import mirror as storage
from schn_ray.core.storage.files import join, read_file, remove_folder
from schn_ray.core.storage.mirror import Mirror

URI = "memory://bucket/run"
LARGE = b"x" * (storage._COPIED + 1)  # is linked, not copied


class Store:
    """What a slow store was sent, by name; it holds uploads back until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self.go_on, self.begun = threading.Event(), threading.Event()
        self.fails = False
        self._send = storage.send_file
        patch.setattr(storage, "send_file", self._held)

    def _held(self, path: Path, uri: str) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        if self.fails:
            raise OSError("the store is full")
        self._send(path, uri)
        self.sent.append(uri.removeprefix(f"{URI}/"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("fsspec")
    slow = Store(monkeypatch)
    others = set(threading.enumerate())
    yield slow
    slow.go_on.set()
    for thread in set(threading.enumerate()) - others:
        thread.join(60)  # an interrupted writer does not wait for its upload
    remove_folder(URI)


def replace(file: Path, data: bytes) -> None:
    partial_path = file.with_name(f"{file.name}.partial")
    partial_path.write_bytes(data)
    partial_path.rename(file)


def step(folder: Path, number: int) -> None:
    """Write as a step of training does: a line more, and a state in place of another."""
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{number}\n")
    replace(folder / "last.pt", LARGE + str(number).encode())
    for order, name in enumerate(("metrics.jsonl", "last.pt")):  # clocks of files are coarse
        os.utime(folder / name, (number, number + order / 2))


def test_a_writer_goes_on_and_the_files_of_the_moment_are_sent(
    store: Store, tmp_path: Path
) -> None:
    with Mirror(URI, tmp_path).sending() as send:
        step(tmp_path, 1)
        (tmp_path / "manifest.json").write_text("{}")
        send()
        store.begun.wait(60)
        for number in (2, 3):  # the second is overtaken while it waits
            step(tmp_path, number)
            send()
        step(tmp_path, 4)  # is not to be sent
        assert store.sent == []
        assert len(list(tmp_path.glob(".moment-*"))) == 2
        store.go_on.set()
    first = ["metrics.jsonl", "last.pt", "manifest.json"]
    assert store.sent == [*first, "metrics.jsonl", "last.pt"]
    assert read_file(join(URI, "metrics.jsonl")) == b"1\n2\n3\n"
    assert read_file(join(URI, "last.pt")) == LARGE + b"3"
    assert not list(tmp_path.glob(".moment-*"))


@pytest.mark.parametrize("again", [True, False])
def test_an_upload_that_fails_is_an_error_of_the_next_or_of_the_end(
    again: bool, store: Store, tmp_path: Path
) -> None:
    store.fails = True
    store.go_on.set()
    step(tmp_path, 1)
    reached = []

    def write() -> None:
        with Mirror(URI, tmp_path).sending() as send:
            send()
            while again:
                send()
            reached.append("end")

    with pytest.raises(OSError, match="the store is full"):
        write()
    assert reached == ([] if again else ["end"])


def test_an_error_of_the_writer_waits_and_an_interruption_does_not(
    store: Store, tmp_path: Path
) -> None:
    def write(error: type[BaseException]) -> None:
        with Mirror(URI, tmp_path).sending() as send:
            send()
            raise error

    step(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt)
    assert store.sent == []
    store.go_on.set()
    with pytest.raises(ZeroDivisionError):
        write(ZeroDivisionError)
    assert "last.pt" in store.sent


def test_what_the_store_has_under_another_name_is_copied_there(
    store: Store, tmp_path: Path
) -> None:
    store.go_on.set()
    mirror = Mirror(URI, tmp_path)
    for number in (1, 2):
        if number == 2:
            (tmp_path / "previous.pt").hardlink_to(tmp_path / "last.pt")
        step(tmp_path, number)
        mirror.send()
    assert store.sent == ["metrics.jsonl", "last.pt"] * 2
    assert read_file(join(URI, "previous.pt")) == LARGE + b"1"
    assert read_file(join(URI, "last.pt")) == LARGE + b"2"


def test_an_upload_that_ends_while_files_are_listed_is_not_in_the_way(tmp_path: Path) -> None:
    step(tmp_path, 1)
    listed = threading.Event()

    def come_and_go() -> None:
        while not listed.is_set():
            (tmp_path / ".moment-x" / "model").mkdir(parents=True)
            shutil.rmtree(tmp_path / ".moment-x")

    uploads = threading.Thread(target=come_and_go)
    uploads.start()
    try:
        for _ in range(1000):
            assert {name for name, _ in storage._files(tmp_path)} == {"last.pt", "metrics.jsonl"}
    finally:
        listed.set()
        uploads.join()
