"""One live line for long work on a terminal; a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_PLAIN_EVERY_S = 20.0
_LIVE_EVERY_S = 0.1


class Progress:
    """Say what is being done, how far it is, its rate and the time left, on standard error.

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
        self._done_before = done
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._started = self._shown = time.monotonic()
        self._note, self._shown_done = "", -1

    def __enter__(self) -> Progress:
        if self._live:
            self._show(time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None and self._shown_done != self.done:
            self._show(time.monotonic())
        if self._live:
            self._out.write("\n" if kind is None else "\r\x1b[K")
            self._out.flush()

    def advance(self, done: int, note: str = "") -> None:
        """Count ``done`` more units; ``note`` is shown behind the figures until the next one."""
        self.done += done
        self._note = note or self._note
        now = time.monotonic()
        if now - self._shown >= (_LIVE_EVERY_S if self._live else _PLAIN_EVERY_S):
            self._show(now)

    def _show(self, now: float) -> None:
        self._shown, self._shown_done = now, self.done
        line = self._line(now - self._started)
        self._out.write(f"\r\x1b[K{line}" if self._live else line + "\n")
        self._out.flush()

    def _line(self, seconds: float) -> str:
        of = f" of {self.total:,}" if self.total else ""
        rate = (self.done - self._done_before) / seconds if seconds > 0 else 0.0
        parts = [f"{self.what}: {self.done:,}{of} {self.unit}"]
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 1 else f"{1 / rate:,.0f} s each")
        if self.total and rate and self.done < self.total:
            parts.append(f"{_clock((self.total - self.done) / rate)} left")
        else:
            parts.append(_clock(seconds))
        return ", ".join(parts) + (f"  {self._note}" if self._note else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
