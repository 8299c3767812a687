"""A run's measurements in TensorBoard's format: the same numbers as ``metrics.jsonl``."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.training.metrics_file import scalars


def require_tensorboard() -> None:
    """Check for the library before training, not after hours of it.

    Raises:
        SchnRayError: the library is not installed.
    """
    if find_spec("tensorboard") is None:
        raise SchnRayError(
            "--tensorboard needs a library that is not installed: "
            "pip install 'schn-ray[tensorboard]'"
        )


class TensorBoardWriter:
    """Writes a TensorBoard directory, always from the first iteration.

    Args:
        path: the directory; an existing one is replaced.
        lines: of ``metrics.jsonl`` so far.
    """

    def __init__(self, path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(path, ignore_errors=True)
        self._writer = SummaryWriter(str(path))
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one more iteration: the numbers of a line of ``metrics.jsonl``."""
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["iteration"])
        self._writer.flush()
