"""The measurements of a run, a line an iteration; they are read without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from schn_ray.core.checked_lines import parse_checked_line
from schn_ray.core.documents import BadDocument
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location, join, read_file

METRICS = "metrics.jsonl"
_REPAIR = "remove this file and run the same command again; an unfinished run writes it anew"


def read_metrics(run: Path | str) -> list[dict[str, Any]]:
    """Read the complete lines of a run's ``metrics.jsonl``, also while it is being written.

    Args:
        run: its directory or URI.

    Returns:
        A dict for each iteration, with the fields of ``Iteration``; empty without a file.

    Raises:
        SchnRayError: the file is damaged.
    """
    try:
        text = read_file(join(as_location(run), METRICS)).decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]  # a line without its newline is incomplete
    return [_parsed(line, number, run) for number, line in enumerate(lines, start=1)]


def scalars(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield name and value of each number of a line, but for the iteration's own.

    Args:
        line: a line of ``metrics.jsonl``.
        prefix: of the names.

    Example:
        >>> dict(scalars({"iteration": 1, "loss": {"pairs": 0.5}, "validation_map": None}))
        {'loss/pairs': 0.5}
    """
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{name}/")
        elif value is not None and name != "iteration":
            yield prefix + name, value


def _parsed(line: str, number: int, run: Path | str) -> dict[str, Any]:
    where = f"{join(as_location(run), METRICS)}, line {number}"
    try:
        return parse_checked_line(line.encode(), where)
    except BadDocument as error:
        raise SchnRayError(f"{where}, is damaged: {_REPAIR}") from error
