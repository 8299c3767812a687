"""What TensorBoard shows of a run: its ``metrics.jsonl`` in TensorBoard's own format."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schn_ray.core.errors import SchnRayError


def require_tensorboard() -> None:
    """Refuse at once what would fail after hours.

    Raises:
        SchnRayError: the library is not installed.
    """
    if find_spec("tensorboard") is None:
        raise SchnRayError(
            "--tensorboard needs a library that is not installed: "
            "pip install 'schn-ray[tensorboard]'"
        )


class TensorBoardWriter:
    """Writes a directory of TensorBoard's, from the beginning.

    Args:
        path: what is there is replaced.
        lines: those of ``metrics.jsonl`` so far.
    """

    def __init__(self, path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(path, ignore_errors=True)
        self._writer = SummaryWriter(str(path))
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Show one more iteration."""
        for name, value in _numbers(line):
            self._writer.add_scalar(name, value, line["iteration"])
        self._writer.flush()


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif value is not None and name != "iteration":
            yield prefix + name, value
