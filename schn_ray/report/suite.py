"""The page of a suite: which method is best on which data, at which length, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from schn_ray.core.manifest import MANIFEST
from schn_ray.report.charts import MOST_CURVES, Chart, Curve
from schn_ray.report.diagrams import map_by_bits
from schn_ray.report.page import write_suite_page
from schn_ray.suites.cells import cpu_seconds
from schn_ray.suites.table import Block, Line, SuiteTable, Tuned, ranking
from schn_ray.suites.table_output import RESULTS, short_settings
from schn_ray.suites.trials import Choice

PAGE = "index.html"
_DIFFERENT_COST = 1.1  # of the largest to the smallest, from which on costs are drawn


def report_suite(table: SuiteTable, name: str, out: Path) -> Path:
    """Write the page of a suite beside its cells.

    Args:
        table: of the suite.
        name: of the suite.
        out: directory of the suite.

    Returns:
        The page.
    """
    methods = {line.method for block in table.blocks for line in block.lines}
    charts = [chart for blocks in _of_data(table.blocks) for chart in _charts(blocks)]
    blocks = [_block(block) for block in table.blocks]
    ranks = [_ranks(blocks) for blocks in table.by_budget if len(blocks) > 1]
    parts = [
        ("glance", "At a glance", charts),
        *((f"block-{i}", block["title"], block) for i, block in enumerate(blocks, start=1)),
        ("ranks", "Ranks", ranks),
        ("not-measured", "Not measured", table.refused),
    ]
    write_suite_page(
        out / PAGE,
        f"{len(methods)} hashing methods side by side",
        charts,
        links=[(key, title) for key, title, shown in parts if shown],
        name=name,
        results=RESULTS,
        verdicts=[_verdict(block) for block in table.blocks],
        trials=max((block.trials for block in table.blocks), default=1),
        ranks=ranks,
        blocks=blocks,
        refused=table.refused,
    )
    return out / PAGE


def _of_data(blocks: Sequence[Block]) -> list[list[Block]]:
    """Group blocks by data set and budget; a group has the lengths."""
    groups: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.data, block.trials), []).append(block)
    return list(groups.values())


def _ranks(blocks: Sequence[Block]) -> dict[str, object]:
    data = list(dict.fromkeys(block.data for block in blocks))
    return {
        "title": blocks[0].settings.capitalize(),
        "head": ["Method", "Mean", *data, *(f"{one.data}, {one.bits} bits" for one in blocks)],
        "rows": [
            (
                rank.method,
                f"{rank.mean:.1f}",
                *(f"{rank.of_data[name]:.1f}" for name in data),
                *map(str, rank.of_block),
            )
            for rank in ranking(blocks)
        ],
    }


def _verdict(block: Block) -> str:
    best, *others = block.lines
    tied = [line.method for line in others if line.tied]
    what = f"{block.title}: {best.method} is best, with mAP {best.map.mean:.3f}"
    if tied:
        return f"{what}. These queries do not tell {', '.join(tied)} apart from it."
    return f"{what}; these queries tell all others apart from it." if others else f"{what}."


def _block(block: Block) -> dict[str, object]:
    classes = list(block.lines[0].cells[0].by_class)
    return {
        "title": block.title,
        "is_tuned": block.is_tuned,
        "rank": block.published_rank if block.lines[0].published_map is not None else None,
        "sentence": (
            f"{block.queries:,} queries against {block.gallery:,} gallery rows, protocol "
            f"{block.protocol}."
        ),
        "spoiling": "; ".join(block.spoiling),
        "unquantised": ", ".join(
            f"{name} {score:.3f}" for name, score in block.unquantised.items()
        ),
        "lines": [_line(line) for line in block.lines],
        "settings": [_settings_row(x.method, x.tuned.choice) for x in block.lines if x.tuned],
        "classes": classes,
        "by_class": [(line.method, *_class_scores(line, classes)) for line in block.lines],
    }


def _line(line: Line) -> dict[str, object]:
    spread = "" if line.deviation is None else f" ± {line.deviation:.3f}"
    return {
        "method": line.method,
        "tied": line.tied,
        "group": line.group,
        "share": f"{line.map.mean:.4f}",
        "map": f"{line.map.mean:.3f}{spread}",
        "interval": f"{line.map.low:.3f} to {line.map.high:.3f}",
        "published_map": "" if line.published_map is None else f"{line.published_map:.3f}",
        "behind": "" if line.behind is None else f"{line.behind.mean:.3f}",
        "seconds": "" if line.train_s is None else cpu_seconds(line.train_s),
        "mflop": f"{line.cells[0].encode_mflop:,.3g}",
        "runs": [
            (one.cell.seed, f"{one.run}-evaluation/metrics.json", f"{one.run}/{MANIFEST}")
            for one in line.cells
        ],
    } | ({} if line.tuned is None else _tuned(line.tuned))


def _tuned(tuned: Tuned) -> dict[str, object]:
    gain, seconds = tuned.gain, tuned.choice.train_s
    return {
        "published": f"{tuned.published.mean:.3f}",
        "gain": "" if gain is None else f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
        "trials_s": "" if seconds is None else cpu_seconds(seconds),
    }


def _settings_row(method: str, choice: Choice) -> tuple[str, ...]:
    if choice.trials == 1:
        return method, "", "", "", "", "nothing to search"
    scores = (choice.validation_map, choice.published_validation_map)
    return (
        method,
        *("" if score is None else f"{score:.3f}" for score in scores),
        str(choice.trials),
        str(choice.failed),
        short_settings(choice.settings) or "nothing: they are the best",
    )


def _class_scores(line: Line, classes: Sequence[str]) -> list[str]:
    scores = [[one.by_class.get(name) for one in line.cells] for name in classes]
    return [
        "" if None in seeds else f"{np.mean([s for s in seeds if s is not None]):.2f}"
        for seeds in scores
    ]


def _charts(blocks: Sequence[Block]) -> list[Chart]:
    drawn = _best(blocks)
    by_bits = {
        name: {
            block.bits: (line.map.mean, line.deviation or 0.0)
            for block in blocks
            for line in block.lines
            if line.method == name
        }
        for name in drawn
    }
    charts = [map_by_bits(by_bits), _training_cost(blocks, drawn), _encoding_cost(blocks, drawn)]
    which = f" ({blocks[0].settings})" if blocks[0].is_tuned else ""
    return [_named(chart, f"{blocks[0].data}{which}") for chart in charts if chart is not None]


def _best(blocks: Sequence[Block]) -> list[str]:
    """Return the methods to draw: those of the first ranks at the longest codes."""
    longest = max(blocks, key=lambda block: block.bits)
    return [line.method for line in longest.lines[:MOST_CURVES]]


def _training_cost(blocks: Sequence[Block], drawn: Sequence[str]) -> Chart | None:
    caption = "Seconds of CPU time of a training, one point a code length; left and high is good."
    curves = _curves(blocks, drawn, lambda line: line.train_s)
    title = "mAP over the time of training"
    return Chart(title, caption, "seconds", "mAP", curves, log_x=True) if curves else None


def _encoding_cost(blocks: Sequence[Block], drawn: Sequence[str]) -> Chart | None:
    """Draw what encoding costs, unless it is nearly the same for all methods."""
    curves = _curves(blocks, drawn, lambda line: line.cells[0].encode_mflop)
    costs = [cost for curve in curves for cost, _ in curve.points]
    if not costs or max(costs) < _DIFFERENT_COST * min(costs):
        return None
    caption = (
        "Of the released network for one image, one point a code length; left and high is good."
    )
    title = "mAP over the cost of encoding"
    return Chart(title, caption, "MFLOP an image", "mAP", curves, log_x=True)


def _curves(
    blocks: Sequence[Block], drawn: Sequence[str], cost: Callable[[Line], float | None]
) -> tuple[Curve, ...]:
    """Return a curve a method, of (cost, mAP), without points of unknown cost."""
    curves = []
    for name in drawn:
        lines = [line for block in blocks for line in block.lines if line.method == name]
        points = tuple((x, line.map.mean) for line in lines if (x := cost(line)))
        curves += [Curve(name, points)] if points else []
    return tuple(curves)


def _named(chart: Chart, what: str) -> Chart:
    return Chart(**(vars(chart) | {"title": f"{what}: {chart.title}"}))
