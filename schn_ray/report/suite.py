"""The page of a suite: which method is best on which data, at which length, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schn_ray.report.charts import MOST_CURVES, Chart, Curve
from schn_ray.report.diagrams import map_by_bits
from schn_ray.report.page import write_suite_page
from schn_ray.suites.table import RESULTS, Block, Line, SuiteTable, ranking

PAGE = "index.html"


def report_suite(table: SuiteTable, name: str, out: Path) -> Path:
    """Write the page of a suite beside its cells.

    Args:
        table: of the suite.
        name: of the suite.
        out: directory of the suite.

    Returns:
        The page.
    """
    groups: dict[str, list[Block]] = {}
    for block in table.blocks:
        groups.setdefault(block.data, []).append(block)
    methods = {line.method for block in table.blocks for line in block.lines}
    charts = [chart for blocks in groups.values() for chart in _charts(blocks)]
    blocks = [_block(block) for block in table.blocks]
    ranks = ranking(table.blocks) if len(table.blocks) > 1 else []
    parts = [
        ("glance", "At a glance", charts),
        *((f"block-{i}", block["title"], block) for i, block in enumerate(blocks, start=1)),
        ("ranks", "Ranks", ranks),
        ("not-trained", "Not trained", table.refused),
    ]
    write_suite_page(
        out / PAGE,
        f"{len(methods)} hashing methods side by side",
        charts,
        links=[(key, title) for key, title, shown in parts if shown],
        name=name,
        results=RESULTS,
        verdicts=[_verdict(block) for block in table.blocks],
        rank_head=["Method", "Mean", *groups, *(block["title"] for block in blocks)],
        ranks=[
            (
                rank.method,
                f"{rank.mean:.1f}",
                *(f"{rank.of_data[name]:.1f}" for name in groups),
                *map(str, rank.of_block),
            )
            for rank in ranks
        ],
        blocks=blocks,
        refused=table.refused,
    )
    return out / PAGE


def _verdict(block: Block) -> str:
    best, *others = block.lines
    tied = [line.method for line in others if line.tied]
    what = f"{block.data}, {block.bits} bits: {best.method} is best, with mAP {best.map.mean:.3f}"
    if tied:
        return f"{what}. These queries do not tell {', '.join(tied)} apart from it."
    return f"{what}; these queries tell all others apart from it." if others else f"{what}."


def _block(block: Block) -> dict[str, object]:
    classes = list(block.lines[0].cells[0].by_class)
    return {
        "title": f"{block.data}, {block.bits} bits",
        "sentence": (
            f"{block.queries:,} queries against {block.gallery:,} gallery rows, protocol "
            f"{block.protocol}."
        ),
        "unquantised": ", ".join(
            f"{name} {score:.3f}" for name, score in block.unquantised.items()
        ),
        "lines": [_line(line) for line in block.lines],
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
        "behind": "" if line.behind is None else f"{line.behind.mean:.3f}",
        "seconds": "" if line.train_s is None else f"{line.train_s:,.0f}",
        "mflop": f"{line.cells[0].encode_mflop:,.3g}",
        "runs": [(one.cell.seed, f"{one.run}-evaluation/metrics.json") for one in line.cells],
    }


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
    charts = [map_by_bits(by_bits), _cost(blocks, drawn)]
    return [_named(chart, blocks[0].data) for chart in charts if chart is not None]


def _best(blocks: Sequence[Block]) -> list[str]:
    """Return the methods to draw: those of the first ranks at the longest codes."""
    longest = max(blocks, key=lambda block: block.bits)
    return [line.method for line in longest.lines[:MOST_CURVES]]


def _cost(blocks: Sequence[Block], drawn: Sequence[str]) -> Chart | None:
    curves = []
    for name in drawn:
        points = tuple(
            (line.train_s, line.map.mean)
            for block in blocks
            for line in block.lines
            if line.method == name and line.train_s
        )
        if points:
            curves.append(Curve(name, points))
    if not curves:
        return None
    caption = "Seconds of CPU time of a training, one point a code length; left and high is good."
    return Chart(
        "mAP over the time of training",
        caption,
        "seconds",
        "mAP",
        tuple(curves),
        log_x=True,
    )


def _named(chart: Chart, data: str) -> Chart:
    return Chart(**(vars(chart) | {"title": f"{data}: {chart.title}"}))
