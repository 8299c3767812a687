"""Kills in the middle of a job, within the test's process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schn_ray.training.recorder import Recorder


class Killed(BaseException):
    """The process ends here: nobody catches it."""


@contextmanager
def killed_after(iteration: int) -> Iterator[None]:
    """Kill the run that the block trains when it has recorded an iteration."""
    record = Recorder.record

    def dies(self: Recorder, measured: Any, best: bool) -> None:
        record(self, measured, best)
        if self.run.iteration >= iteration:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "record", dies)
        with pytest.raises(Killed):
            yield
