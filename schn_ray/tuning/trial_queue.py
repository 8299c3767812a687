"""The queue of trainings that the cluster works through: trials of a search, or a list of runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import remove_file
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.rows import Outcome, Proposal, ranked
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial import TrialDir, trial_dir


@dataclass(frozen=True)
class Job:
    """One training: its number in the queue, its config, and its directory."""

    number: int
    config: TrainConfig
    directory: TrialDir


class TrialQueue(Protocol):
    """Hands out jobs, and receives their scores and outcomes; used by one process."""

    def left(self) -> int:
        """Return the greatest number of jobs that may still be handed out."""

    def next(self) -> Job | None:
        """Return the next job; None if there are no more."""

    def report_score(self, number: int, iteration: int, score: float) -> bool:
        """Record a job's score after an iteration; tell whether to stop the job."""

    def finish(self, number: int, outcome: Outcome) -> None:
        """Record how a job ended."""

    def note(self) -> str:
        """Return a short note for the progress line, such as the best figure so far."""


class Trials:
    """The trials of a search; those that were interrupted come first.

    Args:
        search: proposes trials and records them.
        out: the search's directory, or its URI.
        total: trials in all, those that started earlier included.
        stop: says why no more trials begin, "" as long as they do; asked before each.

    Attributes:
        stopped: why no more trials began, or "".
    """

    def __init__(
        self, search: Search, out: str, total: int, stop: Callable[[], str] = lambda: ""
    ) -> None:
        self._search, self._out, self._total = search, out, total
        self._stop, self.stopped = stop, ""
        self._interrupted = deque(search.unfinished())

    def left(self) -> int:
        """See ``TrialQueue``."""
        return len(self._interrupted) + (self._new() if not self._interrupted else self._most())

    def next(self) -> Job | None:
        """See ``TrialQueue``; a trial whose settings the config refuses is recorded as failed."""
        while (proposal := self._proposal()) is not None:
            try:
                config = self._search.base.config(proposal.values)
            except SchnRayError as error:
                self._search.finish(proposal.number, Outcome("failed", reason=str(error)))
                continue
            directory = trial_dir(self._out, proposal.number)
            remove_file(directory.stop)
            return Job(proposal.number, config, directory)
        return None

    def report_score(self, number: int, iteration: int, score: float) -> bool:
        """See ``TrialQueue``."""
        return self._search.report_score(number, iteration, score)

    def finish(self, number: int, outcome: Outcome) -> None:
        """See ``TrialQueue``."""
        self._search.finish(number, outcome)

    def note(self) -> str:
        """See ``TrialQueue``."""
        best = ranked(self._search.rows())
        return f"best validation mAP {best[0].figures['validation_map']:.4f}" if best else ""

    def _proposal(self) -> Proposal | None:
        if self._interrupted:
            return self._interrupted.popleft()
        return self._search.propose() if self._new() else None

    def _new(self) -> int:
        """Return how many new trials may begin now."""
        most = self._most()
        self.stopped = self._stop() if most else ""
        return 0 if self.stopped else most

    def _most(self) -> int:
        most = self._total - self._search.count_started()
        return 0 if self._search.exhausted else max(0, most)


class Runs:
    """A list of trainings that are all run to their end.

    Args:
        jobs: the trainings.

    Attributes:
        outcomes: number of a job -> how it ended.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = deque(jobs)
        self.outcomes: dict[int, Outcome] = {}

    def left(self) -> int:
        """See ``TrialQueue``."""
        return len(self._jobs)

    def next(self) -> Job | None:
        """See ``TrialQueue``."""
        return self._jobs.popleft() if self._jobs else None

    def report_score(self, number: int, iteration: int, score: float) -> bool:
        """See ``TrialQueue``."""
        return False

    def finish(self, number: int, outcome: Outcome) -> None:
        """See ``TrialQueue``."""
        self.outcomes[number] = outcome

    def note(self) -> str:
        """See ``TrialQueue``."""
        return ""
