"""SIGTERM that leaves a job a few seconds to save what it has."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAVING_S = 5.0  # after it, what is not saved is lost; `ray job stop` and others kill soon after

_requested_at: list[float] = []  # when the process was first asked to end


def seconds_since_request() -> float:
    """Return how long ago a signal was held back by ``time_to_save``; 0 if none was."""
    return time.monotonic() - _requested_at[0] if _requested_at else 0.0


@contextmanager
def time_to_save(
    seconds: float = SAVING_S, on_request: Callable[[], object] = lambda: None
) -> Iterator[threading.Event]:
    """Hold SIGTERM back while the block saves its work and ends.

    The process's own handler runs when the block has ended, or ``seconds`` later inside of it, or
    at once when a second signal comes. A process without a handler of its own, and a thread that
    is not the main one, are left as they are.

    Args:
        seconds: that the block has.
        on_request: called when the signal comes.

    Yields:
        An event that is set when the signal comes.
    """
    event = threading.Event()
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def hold_back(*_: object) -> None:
        if event.is_set():
            handler(signal.SIGTERM, None)
        event.set()
        _requested_at.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, seconds)
        on_request()

    alarm = signal.signal(signal.SIGALRM, handler)
    signal.signal(signal.SIGTERM, hold_back)
    try:
        yield event
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGALRM, alarm)
        if event.is_set():
            handler(signal.SIGTERM, None)
