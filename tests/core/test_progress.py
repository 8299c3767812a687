"""Progress: plain lines for a log, one live line for a terminal."""

import io
import re
import time

import pytest

from schn_ray.core import progress as module
from schn_ray.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fail(what: str, out: io.StringIO) -> None:
    with Progress(what, 4, out=out) as progress:
        progress.advance(2)
        raise ValueError("mine")


def test_a_log_gets_the_last_line_only_when_the_job_is_quick() -> None:
    out = io.StringIO()
    with Progress("encoding", 2000, "images", out=out) as progress:
        progress.advance(1000)
        progress.advance(1000, "loss 0.5")
    assert re.fullmatch(
        r"encoding: 2,000 of 2,000 images, [\d,]+/s, 0:00  loss 0\.5\n", out.getvalue()
    )


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress("training", 10, "iterations", done=2, out=out) as progress:
        for _ in range(8):
            now += 15
            progress.advance(1)
    assert out.getvalue().splitlines() == [
        "training: 4 of 10 iterations, 15 s each, 1:30 left",
        "training: 6 of 10 iterations, 15 s each, 1:00 left",
        "training: 8 of 10 iterations, 15 s each, 0:30 left",
        "training: 10 of 10 iterations, 15 s each, 2:00",
    ]


def test_the_time_left_counts_down_while_a_step_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("training", 4, "iterations", out=io.StringIO())
    now = 10.0
    progress.advance(1)
    assert str(progress) == "training: 1 of 4 iterations, 10 s each, 0:30 left"
    now = 25.0
    assert str(progress) == "training: 1 of 4 iterations, 10 s each, 0:15 left"
    now = 100.0  # later than it was expected: nothing is promised any more
    assert str(progress) == "training: 1 of 4 iterations, 10 s each, 1:40"


def test_a_job_without_a_total_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress("checking", out=out) as progress:
        now += 4000
        progress.advance(4_000_000)
    assert out.getvalue() == "checking: 4,000,000 rows, 1,000/s, 1:06:40\n"


def test_a_job_that_fails_adds_no_line_to_a_log() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="mine"):
        fail("encoding", out)
    assert out.getvalue() == ""


def test_a_terminal_keeps_the_last_line() -> None:
    out = Terminal()
    with Progress("encoding", 4, "images", out=out) as progress:
        progress.advance(3)
        progress.advance(1, "[note] as it is")  # square brackets are no markup
    text = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", out.getvalue())
    last = text.replace("\r", "\n").strip().splitlines()[-1]
    assert re.fullmatch(r"encoding: 4 of 4 images, [\d,]+/s, 0:00  \[note\] as it is", last.strip())


def test_a_terminal_has_one_row_that_an_error_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    with pytest.raises(ValueError, match="mine"):
        fail("x" * 100, out)
    rows = re.findall(r"x+.*", out.getvalue())
    assert rows
    assert all(row.startswith("x" * 39 + "…") for row in rows)
    assert out.getvalue().endswith("\x1b[1A\x1b[2K")


def test_a_log_needs_no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "_live_line", refuse)
    with Progress("encoding", 4, out=io.StringIO()) as progress:
        progress.advance(4)


def test_a_total_that_may_grow_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress("encoding", out=out) as progress:
        for total, so_far in ((1000, True), (2000, False)):
            now += 20
            progress.expect(total, so_far, done_before=200)
            progress.advance(100)
    assert out.getvalue().splitlines() == [
        "encoding: 300 of 1,000 rows so far, 5/s, 0:20",
        "encoding: 400 of 2,000 rows, 5/s, 5:20 left",
    ]
