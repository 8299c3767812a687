"""What a person sees while a run trains: the iteration, its steps, and the time left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, TextIO

from schn_ray.core.progress import Progress, clock
from schn_ray.training.state import Steps

_RECENT = 200  # step times, of which the median is the estimate
_OVERHEADS = 5  # recent iterations, of whose other time the median is the estimate

Look = Callable[[], tuple[list[dict[str, Any]], Steps | None]]
"""Returns the lines of ``metrics.jsonl`` and the steps of the latest iteration, as they are now."""


class Pace:
    """Estimates the time left from medians, so that one slow step does not change it.

    An iteration is its steps, each as long as their median, and all else: slow steps that come
    again and again, the codes' update, validation, a checkpoint.
    """

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=_RECENT)
        self._overheads: deque[float] = deque(maxlen=_OVERHEADS)
        self._last, self._then = Steps(0, 0, 0), 0.0
        self._first, self._began = self._last, 0.0  # that was seen of the present iteration

    def see(self, steps: Steps, now: float) -> None:
        """Take note of how far training is.

        Args:
            steps: of the latest iteration.
            now: seconds, of a clock that only counts.
        """
        last, since = self._last, now - self._then
        if last == steps:
            return
        if steps.iteration == last.iteration:
            self._steps.append(since / max(1, steps.done - last.done))
        else:
            if steps.iteration == last.iteration + 1 and self._steps:
                between = self._first.total - self._first.done + steps.done
                self._overheads.append(max(0.0, now - self._began - between * self.step_s))
            self._first, self._began = replace(steps), now
        self._last, self._then = replace(steps), now

    @property
    def step_s(self) -> float:
        """Seconds of a step; 0 before any was seen."""
        return median(self._steps) if self._steps else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether an iteration's end was seen, too; before, the time left is a lower bound."""
        return bool(self._overheads)

    def left(self, steps: Steps, iterations: int, now: float) -> float:
        """Return the seconds left, counted down since the last step was seen.

        Args:
            steps: of the latest iteration.
            iterations: of the run.
            now: as for ``see``.
        """
        more = max(0, iterations - steps.iteration)
        overhead = median(self._overheads) if self._overheads else 0.0
        ahead = (steps.total - steps.done + more * steps.total) * self.step_s
        return max(0.0, ahead + (more + 1) * overhead - (now - self._then))


class TrainingProgress(Progress):
    """Progress of a run, with the steps within its present iteration.

    Args:
        iterations: of the run; None: it ends when it has converged.
        done: iterations of before.
        out: where to write instead of standard error.
    """

    def __init__(self, iterations: int | None, done: int = 0, out: TextIO | None = None) -> None:
        self._steps: Steps | None = None
        self._pace = Pace()
        super().__init__("training", iterations, "iterations", done, out)

    def see(self, lines: list[dict[str, Any]], steps: Steps | None) -> None:
        """Take note of how far training is.

        Args:
            lines: of ``metrics.jsonl``.
            steps: of the latest iteration; None: not known.
        """
        self._steps = steps
        if steps is not None:
            self._pace.see(steps, time.monotonic())
        self.advance(len(lines) - self.done, _note(lines))

    def __str__(self) -> str:
        steps, now = self._steps, time.monotonic()
        each, is_counted = self._pace.step_s, self.done > self.done_before
        if self.done == self.total or (is_counted and (steps is None or not each)):
            return super().__str__()  # iterations that have no steps, or too short ones
        note = f"  {self.note}" if self.note else ""
        if steps is None:
            done = f"{self.done} iterations done, " if self.done else ""
            return f"{self.what}: {done}starting, {clock(now - self.started)}{note}"
        of_total = f" of {self.total:,}" if self.total else ""
        ended = steps.done == steps.total
        parts = [
            f"{self.what}: iteration {steps.iteration:,}{of_total}",
            "measuring it" if ended else f"step {steps.done:,} of {steps.total:,}",
        ]
        if each:
            parts.append(f"{1 / each:,.1f} steps/s" if each < 1 else f"{each:,.1f} s a step")
        left = self._pace.left(steps, self.total or 0, now) if self.total and each else 0.0
        at_least = "" if self._pace.is_whole else "at least "
        parts.append(f"{at_least}{clock(left)} left" if left else clock(now - self.started))
        return ", ".join(parts) + note


@contextmanager
def watched(
    progress: TrainingProgress, look: Look, each_s: float, seen: Callable[[list[Any]], None]
) -> Iterator[None]:
    """Show a run while the block trains it.

    Args:
        progress: of the run.
        look: called now and then, from a thread, and at the end.
        each_s: seconds between two looks.
        seen: called with the lines after each look.
    """
    ended = threading.Event()

    def show() -> None:
        lines, steps = look()
        progress.see(lines, steps)
        seen(lines)

    def follow() -> None:
        while not ended.wait(each_s):
            show()

    with progress:
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            show()


def _note(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return ""
    last = lines[-1]
    score = last["validation_map"]
    return f"loss {sum(last['loss'].values()):.3g}" + (
        f", validation mAP {score:.3f}" if score is not None else ""
    )
