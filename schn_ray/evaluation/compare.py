"""Several runs side by side: mean and deviation over seeds, and whether a difference is chance.

Runs that differ in nothing but their seed are one method. A difference between two methods is
taken query by query, each method's figure of a query averaged over its seeds, and judged by the
paired bootstrap over queries. So it says whether other queries could turn it round; the deviation
over seeds says how far another training would move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.bootstrap import Difference, paired_difference
from schn_ray.evaluation.results import find_evaluation, read_figures, read_queries

_SAME = (
    ("queries_sha256", "other queries"),
    ("gallery_sha256", "another gallery"),
    ("gallery_codes", "gallery codes of another kind"),
)


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a method; the deviation is the sample's, None for one seed."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class MethodFigures:
    """Runs that differ in nothing but their seed.

    Attributes:
        name: what sets it apart from the other methods.
        bits: of its codes.
        runs: names.
        seeds: of training.
        figures: name -> its spread over the runs, where all of them have it.
        controls: name -> the mean of a control's mAP over the runs.
    """

    name: str
    bits: int
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    figures: dict[str, Spread]
    controls: dict[str, float]


@dataclass(frozen=True)
class Gap:
    """The mAP of one method less that of another, over the same queries."""

    method: str
    less: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Methods in the order of their first run; every other one less the first."""

    queries: int
    gallery: int
    gallery_codes: str
    protocol: str
    methods: tuple[MethodFigures, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, eq=False)
class _Evaluated:
    path: Path
    measured: dict[str, Any]
    ap: NDArray[np.float64]


def compare_runs(paths: Sequence[Path | str]) -> Comparison:
    """Compare evaluations, given as such or as the runs that they stand beside.

    Raises:
        SchnRayError: one is missing, given twice, or was measured on other queries, another
            gallery or other gallery codes than the first.
    """
    found = [_read(find_evaluation(path)) for path in paths]
    _refuse_repeated(found)
    for other in found[1:]:
        _refuse_other_ground(found[0], other)
    groups = _groups(found)
    methods = tuple(_method(name, runs) for name, runs in groups.items())
    first, *others = groups
    measured = found[0].measured
    return Comparison(
        queries=measured["queries"],
        gallery=measured["gallery"],
        gallery_codes=measured["gallery_codes"],
        protocol=measured["protocol"],
        methods=methods,
        gaps=tuple(
            Gap(name, first, gap)
            for name in others
            if (gap := paired_difference(_over_seeds(groups[first]), _over_seeds(groups[name])))
        ),
    )


def as_table(found: Comparison) -> str:
    """Return a comparison as lines to read."""
    lines = [
        f"{found.queries:,} queries, {found.gallery:,} gallery images, gallery codes: "
        f"{found.gallery_codes}, protocol {found.protocol}"
    ]
    width = max(len(method.name) for method in found.methods)
    lines.append(f"  {'':{width}}  runs  mAP              classifier  cosine")
    for method in found.methods:
        score = _shown(method.figures.get("map"))
        controls = "  ".join(
            f"{method.controls[name]:.4f}    " if name in method.controls else "-         "
            for name in ("classifier", "cosine")
        )
        lines.append(
            f"  {method.name:{width}}  {len(method.runs):4}  {score:15}  {controls}".rstrip()
        )
    for gap in found.gaps:
        known = gap.difference.interval
        lines.append(
            f"  {gap.method} less {gap.less}: {known.mean:+.4f} "
            f"[{known.low:+.4f}, {known.high:+.4f}], p = {gap.difference.p_value:.3g}"
        )
    if found.gaps:
        lines.append("  (paired bootstrap over queries, 95 %; seeds averaged query by query)")
    return "\n".join(lines)


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "undefined"
    return f"{spread.mean:.4f}" + (
        "" if spread.deviation is None else f" +- {spread.deviation:.4f}"
    )


def _read(path: Path) -> _Evaluated:
    _, values = read_queries(path)
    return _Evaluated(path, read_figures(path), values["average_precision"])


def _refuse_repeated(found: Sequence[_Evaluated]) -> None:
    seen: dict[Path, Path] = {}
    for one in found:
        if one.path.resolve() in seen:
            raise SchnRayError(f"{one.path} is there twice; a run counts once")
        seen[one.path.resolve()] = one.path


def _refuse_other_ground(first: _Evaluated, other: _Evaluated) -> None:
    for key, what in _SAME:
        if first.measured[key] != other.measured[key]:
            raise SchnRayError(
                f"{other.path} was measured with {what} than {first.path}, so their figures do not "
                "compare: evaluate both on one store, with one kind of gallery codes"
            )


def _groups(found: Sequence[_Evaluated]) -> dict[str, list[_Evaluated]]:
    """Return name -> runs that differ only in their seed."""
    settings = [_flat(one.measured["trained"]) for one in found]
    keys = list(dict.fromkeys(key for each in settings for key in each if key != "seed"))
    varying = [key for key in keys if len({str(each.get(key)) for each in settings}) > 1]
    groups: dict[str, list[_Evaluated]] = {}
    for one, each in zip(found, settings, strict=True):
        # bits always; a model without a run behind it, or alone, goes by its name
        said = [f"{key}={each.get(key)}" for key in varying if key != "bits"]
        if not each:
            said = [str(one.measured["run"])]
        name = ", ".join([f"{one.measured['bits']} bits", *said])
        groups.setdefault(name, []).append(one)
    return groups


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def _method(name: str, runs: Sequence[_Evaluated]) -> MethodFigures:
    measured = [run.measured for run in runs]
    values = [_figures(each) for each in measured]
    controls = [each["controls"] or {} for each in measured]
    known = ("classifier", "cosine", "random")
    shared = {
        key: [value for each in values if (value := each.get(key)) is not None] for key in values[0]
    }
    return MethodFigures(
        name=name,
        bits=measured[0]["bits"],
        runs=tuple(each["run"] for each in measured),
        seeds=tuple(each["trained"].get("seed") for each in measured),
        figures={
            key: _spread(known_values)
            for key, known_values in shared.items()
            if len(known_values) == len(values)
        },
        controls={
            key: float(np.mean([each[key]["mean"] for each in controls]))
            for key in known
            if all(each.get(key) for each in controls)
        },
    )


def _figures(measured: dict[str, Any]) -> dict[str, float | None]:
    """Return name -> value of the figures that a table can have."""
    single = {key: measured[key] for key in ("map", "mrr", "precision_within_radius")}
    at = {
        f"{name}@{k}": value
        for name, key in (("precision", "precision_at"), ("ndcg", "ndcg_at"))
        for k, value in measured[key].items()
    }
    by_hits = {f"map@{k}, hits": values["hits"] for k, values in measured["map_at"].items()}
    return single | by_hits | at


def _spread(values: list[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation)


def _over_seeds(runs: Sequence[_Evaluated]) -> NDArray[np.float64]:
    return np.asarray(np.mean([run.ap for run in runs], axis=0))
