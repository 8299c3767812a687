"""A suite's table as lines of text, and as a Parquet file with a row for each training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.atomic_files import write_atomically
from schn_ray.suites.cells import cpu_seconds
from schn_ray.suites.table import Block, CellFigures, Line, SuiteTable, Tuned, ranking

RESULTS = "results.parquet"


def write_table(table: SuiteTable, out: Path) -> Path:
    """Write a row for each cell as Parquet.

    Args:
        table: of the suite.
        out: directory to write into.

    Returns:
        The file.
    """
    rows = [
        _row(block, line, figures)
        for block in table.blocks
        for line in block.lines
        for figures in line.cells
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
    write_atomically(out / RESULTS, sink.getvalue().to_pybytes())
    return out / RESULTS


def _row(block: Block, line: Line, figures: CellFigures) -> dict[str, object]:
    return {
        "data": block.data,
        "protocol": block.protocol,
        "queries": block.queries,
        "gallery": block.gallery,
        "method": line.method,
        "bits": block.bits,
        "seed": figures.cell.seed,
        "map": figures.map,
        "map_over_seeds": line.map.mean,
        "map_low": line.map.low,
        "map_high": line.map.high,
        "published_rank": block.published_rank,
        "map_at_published_rank": figures.published_map,
        "tied_with_best": line.tied,
        "group": line.group,
        "train_cpu_s": figures.train_s,
        "encode_mflop": figures.encode_mflop,
        "map_by_class": list(figures.by_class.items()),
        "run": figures.run,
        "best_of": block.trials,
    } | ({} if line.tuned is None else _tuned_row(line.tuned))


def _tuned_row(tuned: Tuned) -> dict[str, object]:
    choice, gain = tuned.choice, tuned.gain
    return {
        "settings": json.dumps(choice.settings),
        "trial": choice.trial,
        "trials": choice.trials,
        "failed_trials": choice.failed,
        "trials_cpu_s": choice.train_s,
        "validation_map": choice.validation_map,
        "published_map": tuned.published.mean,
        "gain": None if gain is None else gain.mean,
        "gain_low": None if gain is None else gain.low,
        "gain_high": None if gain is None else gain.high,
    }


def table_text(table: SuiteTable) -> str:
    """Return the table as lines of text.

    Args:
        table: of the suite.
    """
    lines = []
    for block in table.blocks:
        lines.append(
            f"{block.title}: {block.queries:,} queries, {block.gallery:,} gallery rows, "
            f"protocol {block.protocol}"
        )
        width = max(len(line.method) for line in block.lines)
        for line in block.lines:
            spread = "" if line.deviation is None else f" +- {line.deviation:.3f}"
            seconds = "" if line.train_s is None else f"  {cpu_seconds(line.train_s)} s"
            tuned = "" if line.tuned is None else f"  {tuned_text(line.tuned)}"
            of_tables = line.published_map
            cut = "" if of_tables is None else f"  @{block.published_rank} {of_tables:.3f}"
            lines.append(
                f"  {line.group:2}{'=' if line.tied else ' '} {line.method:{width}}  "
                f"{line.map.mean:.3f}{spread}"
                f"  [{line.map.low:.3f}, {line.map.high:.3f}]{cut}{seconds}{tuned}"
            )
        known = ", ".join(f"{name} {score:.3f}" for name, score in block.unquantised.items())
        lines += [f"  features without a code: {known}"] if known else []
        lines += [f"  split audit: {finding}" for finding in block.spoiling]
    for blocks in table.by_budget:
        lines += _ranks_text(blocks) if len(blocks) > 1 else []
    lines += [f"not measured: {cell}: {reason}" for cell, reason in table.refused]
    lines.append(
        "mAP, exact under ties; +- over seeds, [] over queries (95 %). "
        "=: these queries do not tell it apart from the best; 1, 2 ...: groups, each begins where "
        "a method is told apart from the first of the one before"
    )
    return "\n".join(lines)


def tuned_text(tuned: Tuned) -> str:
    """Say in a line what a method's trials were worth, and which settings won.

    Args:
        tuned: of a method.
    """
    choice = tuned.choice
    if choice.trials == 1:
        return "nothing to search"
    failed = f"; {choice.failed} of {choice.trials} trials failed" if choice.failed else ""
    if tuned.gain is None:
        return f"published settings are the best{failed}"
    gain = f"{tuned.gain.mean:+.3f} [{tuned.gain.low:+.3f}, {tuned.gain.high:+.3f}]"
    settings = short_settings(choice.settings)
    return f"published {tuned.published.mean:.3f}, gain {gain}: {settings}{failed}"


def short_settings(settings: Mapping[str, object]) -> str:
    """Return settings by their short names.

    Args:
        settings: dotted key -> value.

    Example:
        >>> short_settings({"method.margin": 0.3, "optimiser.learning_rate": 2e-3})
        'margin=0.3, learning_rate=0.002'
    """
    return ", ".join(
        f"{key.rpartition('.')[2]}={value:g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]}={value}"
        for key, value in settings.items()
    )


def _ranks_text(blocks: Sequence[Block]) -> list[str]:
    ranks = ranking(blocks)
    width = max((len(rank.method) for rank in ranks), default=0)
    which = f", {blocks[0].settings}" if blocks[0].is_tuned else ""
    return [f"mean rank of those trained everywhere{which}"] + [
        f"  {rank.method:{width}}  {rank.mean:4.1f}  "
        + ", ".join(f"{name} {mean:.1f}" for name, mean in rank.of_data.items())
        for rank in ranks
    ]


_SCHEMA = pa.schema(
    [
        ("data", pa.string()),
        ("protocol", pa.string()),
        ("queries", pa.int64()),
        ("gallery", pa.int64()),
        ("method", pa.string()),
        ("bits", pa.int64()),
        ("seed", pa.int64()),
        ("map", pa.float64()),
        ("map_over_seeds", pa.float64()),
        ("map_low", pa.float64()),
        ("map_high", pa.float64()),
        ("published_rank", pa.int64()),
        ("map_at_published_rank", pa.float64()),
        ("tied_with_best", pa.bool_()),
        ("group", pa.int64()),
        ("train_cpu_s", pa.float64()),
        ("encode_mflop", pa.float64()),
        ("map_by_class", pa.map_(pa.string(), pa.float64())),
        ("run", pa.string()),
        ("best_of", pa.int64()),
        ("settings", pa.string()),
        ("trial", pa.int64()),
        ("trials", pa.int64()),
        ("failed_trials", pa.int64()),
        ("trials_cpu_s", pa.float64()),
        ("validation_map", pa.float64()),
        ("published_map", pa.float64()),
        ("gain", pa.float64()),
        ("gain_low", pa.float64()),
        ("gain_high", pa.float64()),
    ]
)
