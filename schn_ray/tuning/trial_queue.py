"""What is to be trained next, for whoever has the machines: new trials, or a list of runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import remove_file
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.space import with_values
from schn_ray.tuning.study import Outcome, Proposal, Search, ranked
from schn_ray.tuning.trial import TrialDir, trial_dir


@dataclass(frozen=True)
class Job:
    """One training: its config, where it is on disk, and its number in the agenda."""

    number: int
    config: TrainConfig
    place: TrialDir


class TrialQueue(Protocol):
    """Hands out jobs and hears of them; one process asks, one question at a time."""

    def left(self) -> int:
        """Return how many jobs are still to be handed out, at most."""

    def next(self) -> Job | None:
        """Return a job, or None where there are no more."""

    def heard(self, number: int, iteration: int, score: float) -> bool:
        """Hear what an iteration measured; tell whether that job is to be stopped."""

    def finished(self, number: int, outcome: Outcome) -> None:
        """Hear how a job ended."""

    def note(self) -> str:
        """Say in a few words what was found so far."""


class Trials:
    """The trials of a search, up to a number of them; those that were interrupted come first."""

    def __init__(self, search: Search, out: str, total: int) -> None:
        self._search, self._out, self._total = search, out, total
        self._interrupted = deque(search.unfinished())

    def left(self) -> int:
        """See ``TrialQueue``."""
        return len(self._interrupted) + max(0, self._total - self._search.begun())

    def next(self) -> Job | None:
        """See ``TrialQueue``; a trial whose settings the config refuses ends here."""
        while (proposal := self._proposal()) is not None:
            try:
                config = with_values(self._search.base, proposal.values)
            except SchnRayError as error:
                self._search.finish(proposal.number, Outcome("failed", reason=str(error)))
                continue
            place = trial_dir(self._out, proposal.number)
            remove_file(place.stop)
            return Job(proposal.number, config, place)
        return None

    def heard(self, number: int, iteration: int, score: float) -> bool:
        """See ``TrialQueue``."""
        return self._search.heard(number, iteration, score)

    def finished(self, number: int, outcome: Outcome) -> None:
        """See ``TrialQueue``."""
        self._search.finish(number, outcome)

    def note(self) -> str:
        """See ``TrialQueue``."""
        best = ranked(self._search.rows())
        return f"best validation mAP {best[0].figures['validation_map']:.4f}" if best else ""

    def _proposal(self) -> Proposal | None:
        if self._interrupted:
            return self._interrupted.popleft()
        if self._search.exhausted or self._search.begun() >= self._total:
            return None
        return self._search.propose()


class Runs:
    """A list of runs that are all trained to their end.

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

    def heard(self, number: int, iteration: int, score: float) -> bool:
        """See ``TrialQueue``."""
        return False

    def finished(self, number: int, outcome: Outcome) -> None:
        """See ``TrialQueue``."""
        self.outcomes[number] = outcome

    def note(self) -> str:
        """See ``TrialQueue``."""
        return ""
