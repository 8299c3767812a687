"""Faults for any verb: kills, full disks, signals, damaged inputs, and two writers at once.

A verb is one line of a table (``Verb``). Each ``check_*`` runs it many times, each time in a
process of its own with one fault, and then once more without: the result has to be what it is when
nobody disturbs it, nothing else may be left, and no error may be a traceback. Each returns how many
faults it tried; with ``every``, one in so many.
"""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from schn_ray.cli import INTERRUPTED, TERMINATED, run_and_exit
from schn_ray.core.artefacts import Artefact
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.manifest import MANIFEST, parse_manifest

DIED = 9
_HANGS_S = 120
_GRACE_S = 10  # between a signal and the end
_FORK = multiprocessing.get_context("fork")
_MAKES = {"os.rename", "os.mkdir"}  # and files that are opened for writing
_CHANGES = _MAKES | {"os.remove", "os.rmdir", "shutil.rmtree"}
_PAGE = 4096

Work = Callable[[Path, Path], object]
Fault = Callable[[Path], None]  # of the folder that the verb writes to; set before it begins
Content = dict[str, Any]


def everything(out: Path) -> Content:
    """Return each file below a folder: its content, or the counts and hashes of a manifest."""
    return {
        path.relative_to(out).as_posix(): _manifest(path)
        if path.name == MANIFEST
        else path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


def _manifest(path: Path) -> object:
    manifest = parse_manifest(path.read_bytes(), path.parent)
    Artefact(path.parent, manifest).check()
    return manifest


@dataclass(frozen=True)
class Verb:
    """One verb, as the faults are tried on it.

    Attributes:
        work: called with the folder of the inputs and the folder to write to.
        reads: what it reads, below the folder of the inputs.
        changes: what lies in the folder to write to when it begins, copied from the inputs.
        content: returns what has to be equal after every fault.
        needs: what else it reads, which has no hashes: it is not damaged.
    """

    work: Work
    reads: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    content: Callable[[Path], object] = everything
    needs: tuple[str, ...] = ()

    def begin(self, root: Path, out: Path) -> Path:
        """Return a new folder to write to, with what the verb changes."""
        out.mkdir()
        for name in self.changes:
            shutil.copytree(root / name, out / name)
        return out

    def undisturbed(self, root: Path, out: Path) -> object:
        self.again(root, self.begin(root, out))
        return self.content(out)

    def warm(self, root: Path, out: Path) -> None:
        """Run it in this process, which imports what each fork would import again."""
        self.work(root, self.begin(root, out))
        shutil.rmtree(out)

    def again(self, root: Path, out: Path) -> None:
        """Run it once more, as a user would after it was stopped."""
        end = ends(self.work, root, out)
        assert end.code == 0, end


class End(NamedTuple):
    """How a process ended, and what it wrote to standard error."""

    code: int
    text: str


def ends(work: Work, root: Path, out: Path, *faults: Fault) -> End:
    """Run a verb with faults in a process of its own, with the exit codes of the command line."""
    return Running(work, root, out, *faults).end()


class Running:
    """A verb that runs in a process of its own."""

    def __init__(self, work: Work, root: Path, out: Path, *faults: Fault) -> None:
        self._reading, writing = os.pipe()
        self._child = _FORK.Process(target=_run, args=(work, root, out, faults, writing))
        self._child.start()
        os.close(writing)
        self._text = b""
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def ended(self, within_s: float) -> bool:
        self._child.join(within_s)
        return self._child.exitcode is not None

    def end(self) -> End:
        self._child.join(_HANGS_S)
        self._child.kill()  # a fork may hang, and be killed there as well as anywhere
        self._child.join()
        self._thread.join()
        return End(int(self._child.exitcode or 0), self._text.decode(errors="replace"))

    def _collect(self) -> None:
        with open(self._reading, "rb") as file:
            self._text = file.read()


def _run(work: Work, root: Path, out: Path, faults: tuple[Fault, ...], stderr: int) -> None:
    os.dup2(stderr, 2)
    os.close(stderr)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    for fault in faults:
        fault(out)

    def run() -> None:
        try:
            work(root, out)
        except AlreadyDone as done:
            print(done)

    run_and_exit(run)


def at_change(
    number: int, act: Callable[[str], None], events: set[str] = _CHANGES, later: bool = False
) -> Fault:
    """Act just before the nth change of a file below the folder to write to, and later ones."""

    def fault(out: Path) -> None:
        seen = 0

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if not _is_change(event, arguments, events) or str(out) not in str(arguments[0]):
                return
            seen += 1
            if seen == number + 1 or (later and seen > number):
                act(str(arguments[0]))

        sys.addaudithook(look)

    return fault


def _is_change(event: str, arguments: tuple[Any, ...], events: set[str]) -> bool:
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in events


def dies_before(number: int) -> Fault:
    """Die before the nth change, without any clean-up."""
    return at_change(number, lambda _: os._exit(DIED))


def gets(number: int, sent: signal.Signals, sent_at: Path) -> Fault:
    """Get a signal before the nth change; the time is written to ``sent_at``."""

    def fault(out: Path) -> None:
        # where tests run in the background, Ctrl-C is ignored, which children inherit
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def act(_: str) -> None:
            sent_at.write_text(str(time.time()))
            os.kill(os.getpid(), sent)

        at_change(number, act)(out)

    return fault


def cannot_make(number: int, error: int) -> Fault:
    """Fail to make the nth file, folder or name, and all after it."""

    def act(path: str) -> None:
        raise OSError(error, os.strerror(error), path)

    return at_change(number, act, _MAKES, later=True)


def cannot_grow(size: int) -> Fault:
    """Fail to write more bytes than this to any file, also from C++, as on a full disk."""
    return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def check_kills(verb: Verb, root: Path, folder: Path, every: int = 1) -> int:
    """Kill before every change."""
    verb.warm(root, folder / "warm")
    expected = verb.undisturbed(root, folder / "undisturbed")
    for tried, number in enumerate(_numbers(every)):
        out = verb.begin(root, folder / "out")
        end = ends(verb.work, root, out, dies_before(number))
        assert end.code in (0, DIED, -signal.SIGKILL), (number, end)
        verb.again(root, out)
        assert verb.content(out) == expected, f"killed before change {number}"
        shutil.rmtree(out)
        if end.code == 0:
            return tried
    raise AssertionError


def _numbers(every: int) -> range:
    return range(every // 2, 10_000, every)


def check_signals(verb: Verb, root: Path, folder: Path, every: int = 1) -> int:
    """Send SIGTERM and SIGINT, in turn, before every change."""
    verb.warm(root, folder / "warm")
    expected = verb.undisturbed(root, folder / "undisturbed")
    codes = [(signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)]
    for tried, number in enumerate(_numbers(every)):
        sent, code = codes[tried % 2]
        out = verb.begin(root, folder / "out")
        sent_at = folder / "sent"
        end = ends(verb.work, root, out, gets(number, sent, sent_at))
        if not sent_at.exists():
            assert end.code == 0, end
            return tried
        took_s = time.time() - float(sent_at.read_text())
        sent_at.unlink()
        assert took_s < _GRACE_S, (number, took_s)
        # one that comes when all is done is too late
        assert end.code == code or (end.code == 0 and verb.content(out) == expected), (number, end)
        assert end.code == 0 or "run the same command again" in end.text, end
        assert "Traceback" not in end.text, end
        verb.again(root, out)
        assert verb.content(out) == expected, f"signal before change {number}"
        shutil.rmtree(out)
    raise AssertionError


def check_full_disk(verb: Verb, root: Path, folder: Path, every: int = 1) -> int:
    """Fail at every file that is made, and at the end of every file."""
    verb.warm(root, folder / "warm")
    expected = verb.undisturbed(root, folder / "undisturbed")
    files = [path for path in (folder / "undisturbed").rglob("*") if path.is_file()]
    limits = sorted({0, 1, *(path.stat().st_size - 1 for path in files if path.stat().st_size)})
    faults = [(True, cannot_grow(limit)) for limit in limits[:: min(every, len(limits))]]
    errors = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
    # first the limits, then every file until the verb makes no more
    numbers = enumerate(_numbers(every))
    made = ((False, cannot_make(number, errors[turn % 4])) for turn, number in numbers)
    for tried, (limited, fault) in enumerate(itertools.chain(faults, made)):
        out = verb.begin(root, folder / "out")
        end = ends(verb.work, root, out, fault)
        if end.code == 0 and not limited:
            shutil.rmtree(out)
            return tried
        if end.code:
            assert end.code == 2, (tried, end)
            named = re.search(r"cannot write (.+?): ", end.text)
            assert named, (tried, end)
            assert named[1].startswith(str(out)), (tried, end)
            assert not (limited and named[1].endswith(".partial")), (tried, end)  # a folder
            assert "run the same command again" in end.text, (tried, end)
            assert "Traceback" not in end.text, (tried, end)
            verb.again(root, out)
        assert verb.content(out) == expected, (tried, end)
        shutil.rmtree(out)
    raise AssertionError


def check_damage(verb: Verb, root: Path, folder: Path, times: int = 3, seed: int = 0) -> int:
    """Damage every kind of file that is read so many times; return how often it was noticed.

    An answer is right or an error: a damaged file that the verb had no need of is no error.
    """
    inputs, names = folder / "inputs", {*verb.reads, *verb.changes}
    for name in names:
        shutil.copytree(root / name, inputs / name)
    for name in verb.needs:
        (inputs / name).symlink_to(root / name)
    verb.warm(root, folder / "warm")  # not of the inputs: a fork would have them in memory
    expected = verb.undisturbed(inputs, folder / "undisturbed")
    files = [p for name in names for p in sorted((inputs / name).rglob("*")) if p.is_file()]
    kinds: dict[str, list[Path]] = {}
    for path in files:
        kinds.setdefault(re.sub(r"\d+", "0", str(path)), []).append(path)
    rng, noticed = np.random.default_rng(seed), 0
    for kind in kinds.values():
        for turn in range(times):
            file = kind[int(rng.integers(len(kind)))]
            content = file.read_bytes()
            what, damaged = _damaged(content, rng, turn)
            file.write_bytes(damaged)
            noticed += _notices(verb, inputs, folder / "out", expected, f"{file}, {what}")
            file.write_bytes(content)
    return noticed


def _notices(verb: Verb, inputs: Path, out: Path, expected: object, damage: str) -> bool:
    verb.begin(inputs, out)
    end = ends(verb.work, inputs, out)
    assert end.code in (0, 2), (damage, end)
    assert "Traceback" not in end.text, (damage, end)
    if end.code == 0:
        assert verb.content(out) == expected, damage
    else:
        assert end.text.startswith("schn-ray: "), (damage, end)
    shutil.rmtree(out)
    return end.code != 0


def _damaged(content: bytes, rng: np.random.Generator, turn: int) -> tuple[str, bytes]:
    """Return what may have become of a file: flipped bits, a zeroed page, a cut, nothing."""
    if not content:
        return "a byte more", b"\0"
    match turn % 3:
        case 0:
            bit, damaged = int(rng.integers(8 * len(content))), bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            return f"bit {bit} flipped", bytes(damaged)
        case 1:
            start = int(rng.integers(len(content))) // _PAGE * _PAGE
            size = len(content[start:][:_PAGE])
            zeroed = content[:start] + bytes(size) + content[start + _PAGE :]
            return f"page at {start} zeroed", zeroed
        case _:
            size = int(rng.integers(len(content))) if turn > 2 else 0
            return f"cut to {size} bytes", content[:size]


def check_two(
    first: Verb,
    second: Verb,
    root: Path,
    folder: Path,
    every: int = 1,
    said: str = "another process",
) -> int:
    """Run the second verb from its beginning to its end before every change of the first.

    Both are in the result, in either order, or one is refused and the other is in the result.
    """
    first.warm(root, folder / "warm")
    orders = [(first,), (second,), (first, second), (second, first)]
    alone_first, alone_second, *both = (
        _one_after_the_other(order, root, folder / f"order-{number}")
        for number, order in enumerate(orders)
    )
    for tried, number in enumerate(_numbers(every)):
        reached, go_on = _FORK.Event(), _FORK.Event()

        def wait(_: str, reached: Any = reached, go_on: Any = go_on) -> None:
            reached.set()
            go_on.wait(_HANGS_S)

        out = first.begin(root, folder / "out")
        running = Running(first.work, root, out, at_change(number, wait))
        while not reached.wait(0.01) and not running.ended(0):
            pass
        second_end = ends(second.work, root, out)
        go_on.set()
        first_end = running.end()
        for end in (first_end, second_end):
            assert end.code in (0, 2), (number, end)
            assert "Traceback" not in end.text, (number, end)
            if end.code:
                assert re.search(said, end.text), (number, end)
        content = first.content(out)
        shutil.rmtree(out)
        match (first_end.code, second_end.code):
            case (0, 0):
                assert content in both, number
            case (0, _):
                assert content == alone_first, number
            case (_, 0):
                assert content == alone_second, number
            case _:
                raise AssertionError(f"both were refused before change {number}")
        if not reached.is_set():
            return tried
    raise AssertionError


def _one_after_the_other(verbs: tuple[Verb, ...], root: Path, out: Path) -> object:
    verbs[0].begin(root, out)
    for number, verb in enumerate(verbs):
        end = ends(verb.work, root, out)
        assert end.code == 0 or (end.code == 2 and number), end  # a second may be refused
    return verbs[0].content(out)
