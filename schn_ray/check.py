"""Look at a source before anything is made from it: counts, balance, bad files, duplicates."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from schn_ray.config import SourceConfig
from schn_ray.images import BadImage, decode
from schn_ray.sources import BadRow, Row, Source

_SHOWN = 20


@dataclass
class Report:
    """What ``check`` found.

    Attributes:
        kind: layout of the source, as given or guessed.
        location: where it is.
        rows: all rows, bad ones included.
        classes: name -> images with that label, most frequent first.
        unlabelled: good images without a label.
        multi_label: good images with several.
        bad_rows: rows that ``prepare`` would put aside, with their reasons; repeated ids too.
        repeated_images: good images whose bytes an earlier one has.
        sizes: ``smallest``, ``median`` and ``largest`` -> [width, height] in pixels; empty where
            no image is good. The median is of widths and heights apart.
        max_bad_share: the share of bad rows above which ``prepare`` stops.
        next_command: what to run next.
    """

    kind: str
    location: str
    rows: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    multi_label: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    repeated_images: int = 0
    sizes: dict[str, list[int]] = field(default_factory=dict)
    max_bad_share: float = 0.0
    next_command: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def check(
    source: Source, config: SourceConfig, advance: Callable[[int], object] = lambda rows: None
) -> Report:
    """Read and decode every row, and count; nothing is written.

    Args:
        source: what to look at.
        config: limits, and where they are not the usual ones, part of the next command.
        advance: called with the number of rows just done, such as ``Progress.advance``.

    Raises:
        SchnRayError: nothing there, or not in this layout.
    """
    report = Report(source.kind, source.location, max_bad_share=config.max_bad_share)
    tally = _Tally(report, config.max_pixels)
    for shard in source.shards():
        for row in source.read(shard):
            tally.add(row)
            advance(1)
    tally.finish()
    report.next_command = _next_command(source, config, bool(report.classes))
    return report


def render(report: Report) -> str:
    """Return the report as text."""
    good = report.rows - len(report.bad_rows)
    lines = [
        f"{report.location} ({report.kind})",
        f"  rows             {report.rows:,}: {good:,} good, {len(report.bad_rows):,} bad",
        f"  classes          {_balance(report.classes)}",
        f"  several labels   {report.multi_label:,} images",
        f"  no label         {report.unlabelled:,} images",
        f"  repeated images  {report.repeated_images:,} with the same bytes as an earlier one",
    ]
    sizes = (f"{name} {width} x {height}" for name, (width, height) in report.sizes.items())
    lines += [f"  pixels           {', '.join(sizes)}"] if report.sizes else []
    lines += _listed(
        "images a class", [f"{n:>9,}  {_one_line(c)}" for c, n in report.classes.items()]
    )
    lines += _listed("bad rows", [f"{_one_line(r.id)}: {r.reason}" for r in report.bad_rows])
    if len(report.bad_rows) > report.max_bad_share * report.rows:
        lines.append(
            f"\nMore than max_bad_share = {report.max_bad_share:g} of the rows are bad: 'prepare' "
            "stops there. Mend them, or --set source.max_bad_share=..."
        )
    return "\n".join([*lines, "", f"Next: {report.next_command}"])


class _Tally:
    """Counts rows into a report; keeps ids and digests, not images."""

    def __init__(self, report: Report, max_pixels: int) -> None:
        self._report, self._max_pixels = report, max_pixels
        self._first_with_id: dict[str, str] = {}
        self._digests: set[bytes] = set()
        self._classes: Counter[str] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()

    def add(self, row: Row | BadRow) -> None:
        self._report.rows += 1
        if isinstance(row, Row):
            try:
                size = decode(row.image, self._max_pixels).size
            except BadImage as error:
                row = BadRow(row.id, row.uri, "decode", error.reason)
            else:
                first = self._first_with_id.setdefault(row.id, row.uri)
                if first == row.uri:
                    self._add_good(row, size)
                    return
                row = BadRow(row.id, row.uri, "id", f"same id as {first}")
        self._report.bad_rows.append(row)

    def finish(self) -> None:
        self._report.classes = dict(self._classes.most_common())
        if self._sizes:
            by_area = sorted(self._sizes, key=lambda size: (size[0] * size[1], size))
            counts = list(self._sizes.values())
            median = np.median(np.repeat(list(self._sizes), counts, axis=0), axis=0)
            self._report.sizes = {
                "smallest": list(by_area[0]),
                "median": [int(side) for side in median],
                "largest": list(by_area[-1]),
            }

    def _add_good(self, row: Row, size: tuple[int, int]) -> None:
        digest = hashlib.sha256(row.image).digest()
        self._report.repeated_images += digest in self._digests
        self._digests.add(digest)
        self._classes.update(row.labels)
        self._sizes[size] += 1
        self._report.unlabelled += not row.labels
        self._report.multi_label += len(row.labels) > 1


def _next_command(source: Source, config: SourceConfig, labelled: bool) -> str:
    changed = config.model_dump(exclude_defaults=True)
    settings = "".join(f" --set {shlex.quote(f'source.{k}={v}')}" for k, v in changed.items())
    if labelled:
        return f"schn-ray prepare {shlex.quote(source.location)} --out store{settings}"
    return f"schn-ray encode {shlex.quote(source.location)} --model RUN --out codes{settings}"


def _balance(classes: dict[str, int]) -> str:
    if not classes:
        return "none: these images can be encoded and searched, but not trained on"
    names, counts = [_one_line(name) for name in classes], list(classes.values())
    if len(names) == 1:
        return f"1, '{names[0]}' with {counts[0]:,} images: training needs at least two classes"
    return (
        f"{len(names):,}; largest '{names[0]}' {counts[0]:,}, smallest '{names[-1]}' {counts[-1]:,}"
    )


def _listed(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"    and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
    return ["", f"  {title}", *(f"    {line}" for line in lines[:_SHOWN]), *more]


def _one_line(name: str) -> str:
    return name if name.isprintable() else repr(name)
