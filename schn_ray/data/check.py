"""Examine a source before it is prepared: counts, class balance, bad files, duplicates."""

from __future__ import annotations

import hashlib
import itertools
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from schn_ray.data.config import SourceConfig
from schn_ray.data.images import NO_HEIC, BadImage, decode, downsized
from schn_ray.data.shards.quarantine import heic_line, share_to_allow
from schn_ray.data.shards.rows import BadRow, Row, Source
from schn_ray.data.shards.vectors import NOT_FINITE, ZERO, VectorFormat, vectors_of
from schn_ray.data.splits.protocols import STABLE, UNLABELLED

_SHOWN = 20
_SAMPLES = 6  # images per class
_SAMPLED_CLASSES = 60
_SAMPLE_SIDE = 96  # pixels
_LEAST = 4  # images of a class: the protocol random needs so many
_FEW_ROWS = 200  # with fewer, the protocol stable may leave a role empty
_PAIRS_COUNTED = 50  # pairs of labels are not counted for images with more labels than this


@dataclass
class Report:
    """The result of ``check_source``.

    Attributes:
        kind: layout of the source, as given or guessed.
        location: path or URI of the source.
        rows: how many rows it has, good and bad.
        classes: name -> images with that label, most frequent first.
        unlabelled: good rows without a label.
        multi_label: good rows with more than one label.
        bad_rows: rows that ``prepare`` would quarantine, with their reasons; repeated ids too.
        repeated_images: good images, or vectors, with the same bytes as an earlier one.
        sizes: ``smallest``, ``median`` and ``largest`` -> [width, height] in pixels; empty if no
            image is good. The median is taken of widths and heights separately.
        copies: groups of ids whose images have the same bytes; groups with different labels come
            first.
        overlaps: pairs of labels that share images, the most frequent first: both names, how many
            images have both, and whether every image of the first has the second.
        splits: role that the data set gives its rows -> how many; empty if it gives none.
        cameras: how many different cameras the rows name.
        vectors: ``width``, ``dtype``, and of good vectors ``smallest_norm``, ``mean_norm`` and
            ``largest_norm``; then how many are ``zero``, ``not_finite`` or otherwise ``bad``; empty
            if rows have no vectors.
        how_known: whether the kind was given or guessed.
        max_bad_share: share of bad rows above which ``prepare`` stops.
        next_command: the command to run next.
        samples: class -> a few of its images, made smaller; empty unless they were requested.
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
    copies: list[list[str]] = field(default_factory=list)
    overlaps: list[tuple[str, str, int, bool]] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    cameras: int = 0
    vectors: dict[str, Any] = field(default_factory=dict)
    how_known: str = ""
    max_bad_share: float = 0.0
    next_command: str = ""
    samples: dict[str, list[bytes]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, without ``samples``."""
        values = asdict(replace(self, samples={}))
        del values["samples"]
        return values


def check_source(
    source: Source,
    config: SourceConfig,
    advance: Callable[[int], object] = lambda rows: None,
    samples: bool = False,
) -> Report:
    """Read and decode every row of a source, and report on it; nothing is written.

    Args:
        source: the rows to read.
        config: how the source is read. Settings that differ from the defaults are repeated in the
            next command.
        advance: called with the number of rows just done, such as ``Progress.advance``.
        samples: add a few small images of each class to the report.

    Raises:
        SchnRayError: the source does not exist, or has another layout.
    """
    report = Report(source.kind, source.location, max_bad_share=config.max_bad_share)
    report.how_known = "as given" if config.kind != "auto" else "guessed from its content"
    tally = _Tally(report, config.max_pixels, samples)
    shards = source.shards()
    tally.vectors = vectors_of(source)
    for shard in shards:
        for row in source.read(shard):
            tally.add(row)
            advance(1)
    tally.finish()
    report.next_command = _next_command(source, config, report)
    return report


def render(report: Report) -> str:
    """Return a report as text for a terminal.

    Args:
        report: of ``check``.
    """
    good = report.rows - len(report.bad_rows)
    things = "vectors" if report.vectors and not report.sizes else "images"
    lines = [
        f"{report.location} ({report.kind}, {report.how_known})",
        f"  rows             {report.rows:,}: {good:,} good, {len(report.bad_rows):,} bad",
        f"  classes          {_balance(report.classes)}",
        f"  several labels   {report.multi_label:,} {things}",
        f"  no label         {report.unlabelled:,} {things}",
        f"  repeated {things:<8}{report.repeated_images:,} with the same bytes as an earlier one",
    ]
    lines += _vector_lines(report.vectors)
    sizes = (f"{name} {width} x {height}" for name, (width, height) in report.sizes.items())
    lines += [f"  pixels           {', '.join(sizes)}"] if report.sizes else []
    if report.splits:
        roles = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
        lines.append(f"  its own split    {roles}")
    lines += [f"  cameras          {report.cameras:,}"] if report.cameras else []
    lines += _listed(
        "images a class", [f"{n:>9,}  {_one_line(c)}" for c, n in report.classes.items()]
    )
    lines += _listed("labels that share images", _overlap_lines(report))
    lines += _listed("the same bytes", [" = ".join(map(_one_line, ids)) for ids in report.copies])
    if heic := sum(row.reason == NO_HEIC for row in report.bad_rows):
        lines += ["", f"  {heic_line(heic)}"]
    lines += _listed("bad rows", [f"{_one_line(r.id)}: {r.reason}" for r in report.bad_rows])
    if len(report.bad_rows) > report.max_bad_share * report.rows:
        lines.append(
            f"\nMore than max_bad_share = {report.max_bad_share:g} of the rows are bad: 'prepare' "
            "would stop. Repair them, or leave them out, as the next command does"
        )
    return "\n".join([*lines, "", f"Next: {report.next_command}"])


def _vector_lines(vectors: dict[str, Any]) -> list[str]:
    if not vectors:
        return []
    lines = [
        f"  vectors          {vectors['width']:,} numbers each, {vectors['dtype']}; "
        f"{vectors['zero']:,} all zeros, {vectors['not_finite']:,} with NaN or infinity"
    ]
    if "mean_norm" in vectors:
        smallest, mean, largest = (
            vectors[f"{name}_norm"] for name in ("smallest", "mean", "largest")
        )
        lines.append(f"  norms            {smallest:.4g} to {largest:.4g}, {mean:.4g} on average")
    return lines


class _Tally:
    """Adds rows to a report; holds ids and digests in memory, not images."""

    def __init__(self, report: Report, max_pixels: int, samples: bool) -> None:
        self._report, self._max_pixels, self._samples = report, max_pixels, samples
        self._first_with_id: dict[str, str] = {}
        self._ids_of: dict[bytes, list[tuple[str, tuple[str, ...]]]] = {}
        self._classes: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._splits: Counter[str] = Counter()
        self._cameras: set[int] = set()
        self._norms: list[float] = []
        self.vectors: VectorFormat | None = None

    def add(self, row: Row | BadRow) -> None:
        self._report.rows += 1
        if isinstance(row, Row):
            try:
                size = self._size(row)
            except BadImage as error:
                row = BadRow(row.id, row.uri, "decode", error.reason)
            else:
                first = self._first_with_id.setdefault(row.id, row.uri)
                if first == row.uri:
                    self._add_good(row, size)
                    return
                row = BadRow(row.id, row.uri, "id", f"same id as {first}")
        self._report.bad_rows.append(row)

    def _size(self, row: Row) -> tuple[int, int] | None:
        if row.image is None and row.vector is not None:
            return None
        return decode(row.image or b"", self._max_pixels).size

    def finish(self) -> None:
        report = self._report
        report.classes = dict(self._classes.most_common())
        report.splits = dict(self._splits.most_common())
        report.cameras = len(self._cameras - {-1})
        groups = [rows for rows in self._ids_of.values() if len(rows) > 1]
        # copies with different labels are certainly mistakes
        groups.sort(key=lambda rows: len({labels for _, labels in rows}) == 1)
        report.copies = [[row_id for row_id, _ in rows] for rows in groups]
        report.overlaps = [self._overlap(*pair) for pair in self._pairs.most_common()]
        report.samples = dict(sorted(report.samples.items(), key=lambda item: self._rank(item[0])))
        if self._sizes:
            by_area = sorted(self._sizes, key=lambda size: (size[0] * size[1], size))
            counts = list(self._sizes.values())
            median = np.median(np.repeat(list(self._sizes), counts, axis=0), axis=0)
            report.sizes = {
                "smallest": list(by_area[0]),
                "median": [int(side) for side in median],
                "largest": list(by_area[-1]),
            }
        if self.vectors is not None:
            report.vectors = self._vector_figures(self.vectors)

    def _vector_figures(self, vectors: VectorFormat) -> dict[str, Any]:
        reasons = Counter(row.reason for row in self._report.bad_rows)
        zero, not_finite = reasons[ZERO], reasons[NOT_FINITE]
        figures: dict[str, Any] = {"width": vectors.width, "dtype": vectors.dtype}
        if self._norms:
            norms = np.array(self._norms)
            figures |= {
                "smallest_norm": float(norms.min()),
                "mean_norm": float(norms.mean()),
                "largest_norm": float(norms.max()),
            }
        bad = len(self._report.bad_rows) - zero - not_finite
        return figures | {"zero": zero, "not_finite": not_finite, "bad": bad}

    def _add_good(self, row: Row, size: tuple[int, int] | None) -> None:
        content = row.image if row.image is not None else np.asarray(row.vector).tobytes()
        same = self._ids_of.setdefault(hashlib.sha256(content).digest(), [])
        same.append((row.id, row.labels))
        self._report.repeated_images += len(same) > 1
        self._classes.update(row.labels)
        if 1 < len(row.labels) <= _PAIRS_COUNTED:
            self._pairs.update(itertools.combinations(sorted(row.labels), 2))
        if size is not None:
            self._sizes[size] += 1
        if row.vector is not None:
            self._norms.append(float(np.linalg.norm(row.vector.astype(np.float32))))
        self._splits.update((row.split or "").split())
        self._cameras.add(row.camera)
        self._report.unlabelled += not row.labels
        self._report.multi_label += len(row.labels) > 1
        if self._samples and row.image is not None:
            self._keep_sample(row, row.image)

    def _keep_sample(self, row: Row, image: bytes) -> None:
        samples = self._report.samples
        for name in row.labels or ("",):
            if name not in samples and len(samples) == _SAMPLED_CLASSES:
                continue
            images = samples.setdefault(name, [])
            if len(images) < _SAMPLES:
                images.append(downsized(image, self._max_pixels, _SAMPLE_SIDE, 80)[0])

    def _overlap(self, pair: tuple[str, str], both: int) -> tuple[str, str, int, bool]:
        rarer, other = sorted(pair, key=lambda name: self._classes[name])
        return rarer, other, both, both == self._classes[rarer]

    def _rank(self, name: str) -> tuple[int, str]:
        return -self._classes[name], name


def _overlap_lines(report: Report) -> list[str]:
    return [
        f"{both:>9,}  {_one_line(rarer)} and {_one_line(other)}"
        + (f": every '{_one_line(rarer)}' is one" if all_of_them else "")
        for rarer, other, both, all_of_them in report.overlaps
    ]


_PROTOCOL_OF = {
    "cifar10": "cifar10-54k",
    "nuswide": "nuswide-21",
    "mirflickr": "mirflickr",
    "coco": "coco",
    "voc": "official",
    "cifar100": "official",
    "market1501": "market1501",
    "veri776": "veri776",
}


def _next_command(source: Source, config: SourceConfig, report: Report) -> str:
    changed = config.model_dump(exclude_defaults=True)
    if config.max_bad_share * report.rows < len(report.bad_rows) < report.rows:
        changed["max_bad_share"] = share_to_allow(len(report.bad_rows), report.rows)
    settings = "".join(f" --set {shlex.quote(f'source.{k}={v}')}" for k, v in changed.items())
    if len(report.classes) > 1:
        has_all_roles = {"train", "test", "database"} <= set(report.splits)
        name = _PROTOCOL_OF.get(source.kind, "listed" if has_all_roles else None)
        if name is None and not report.multi_label and min(report.classes.values()) < _LEAST:
            name = STABLE if report.rows >= _FEW_ROWS else UNLABELLED
        protocol = f" --protocol {name}" if name else ""
        location = shlex.quote(source.location)
        return f"schn-ray prepare {location} --out store{protocol}{settings}"
    location = shlex.quote(source.location)
    return f"schn-ray prepare {location} --out store --protocol {UNLABELLED}{settings}"


def _balance(classes: dict[str, int]) -> str:
    if not classes:
        return "none: methods that need no labels can be trained, and rows encoded and searched"
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
