"""Progress of a long job: a live line on a terminal, a plain line now and then elsewhere.

``rich.progress`` draws the live line. It has nothing for a log file, so the plain line is ours, and
both have the same text.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as LiveLine

_PLAIN_EVERY_S, _PLAIN_SHARE, _PLAIN_MOST_S = 20.0, 0.1, 600.0


class Progress:
    """Show what is done, how much of it, the rate and the time left, on standard error.

    Args:
        what: the job, such as ``encoding``.
        total: units in all; None if that is not known.
        unit: name of the units, in the plural.
        done: units that were done before, in an earlier run; they do not count for the rate.
        out: where to write instead of standard error.

    Attributes:
        done: units that are done so far.
        done_before: those of an earlier run.
        started: when, by ``time.monotonic``.
        note: text after the figures.

    Example:
        >>> import io
        >>> out = io.StringIO()
        >>> with Progress("encoding", total=4, unit="images", out=out) as progress:
        ...     progress.advance(4)
        >>> out.getvalue().startswith("encoding: 4 of 4 images")
        True
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "rows",
        done: int = 0,
        out: TextIO | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.done_before, self._so_far = done, False
        self._out = out or sys.stderr
        self.started = self._shown = self._advanced = time.monotonic()
        self.note, self._shown_done = "", -1
        self._live = _live_line(self, self._out) if self._out.isatty() else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.live.transient = kind is not None  # an error message takes its row
            self._live.stop()
        elif kind is None and self._shown_done != self.done:
            self._write_line()

    def __str__(self) -> str:
        seconds = time.monotonic() - self.started
        of_total = f" of {self.total:,}" if self.total else ""
        # at the last step: while the next one is awaited, the estimate counts down and never up
        counted = self._advanced - self.started
        rate = (self.done - self.done_before) / counted if counted > 0 else 0.0
        so_far = " so far" if self.total and self._so_far else ""
        parts = [f"{self.what}: {self.done:,}{of_total} {self.unit}{so_far}"]
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 1 else f"{1 / rate:,.0f} s each")
        left = (self.total - self.done) / rate + counted - seconds if self.total and rate else 0.0
        if left > 0 and not so_far:
            parts.append(f"{clock(left)} left")
        else:
            parts.append(clock(seconds))
        return ", ".join(parts) + (f"  {self.note}" if self.note else "")

    def expect(self, total: int, so_far: bool = False, done_before: int = 0) -> None:
        """Change how many units there are.

        Args:
            total: units in all.
            so_far: whether there may be more: then no time left is shown.
            done_before: units that were done in an earlier run, as far as that is known.
        """
        self.total, self._so_far = total, so_far
        self.done += done_before - self.done_before
        self.done_before = done_before

    def advance(self, done: int, note: str = "") -> None:
        """Count more units as done.

        Args:
            done: how many more.
            note: text to show after the figures, until the next note.
        """
        self.done += done
        if done:
            self._advanced = time.monotonic()
        self.note = note or self.note
        if self._live is None and time.monotonic() - self._shown >= self._plain_every_s():
            self._write_line()

    def _plain_every_s(self) -> float:
        """Return the seconds between two plain lines: the longer a job, the rarer they are."""
        running = time.monotonic() - self.started
        return min(max(_PLAIN_EVERY_S, _PLAIN_SHARE * running), _PLAIN_MOST_S)

    def _write_line(self) -> None:
        self._shown, self._shown_done = time.monotonic(), self.done
        self._out.write(f"{self}\n")
        self._out.flush()


def _live_line(progress: Progress, out: TextIO) -> LiveLine:
    from rich.console import Console  # not above: a job without a terminal needs no rich
    from rich.progress import Progress as LiveLine
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Line(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(str(progress), no_wrap=True, overflow="ellipsis")

    # what the job prints on stderr goes above the line; stdout may be piped and stays alone
    console = Console(file=out, force_terminal=True)
    live = LiveLine(Line(), console=console, redirect_stdout=False)
    live.add_task("")
    return live


def clock(seconds: float) -> str:
    """Return a time as people read it.

    Args:
        seconds: how long.

    Example:
        >>> clock(59.6), clock(3725)
        ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
