"""The table of a suite: every method's figures over its seeds, and which differences may be chance.

Within a data set and a code length, each method is compared with the best one, query by query, with
its average precision averaged over the seeds (paired bootstrap over queries). Methods whose
interval of the difference holds 0 are not told apart from the best by these queries. The first that
is told apart from the first of its group begins the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location, join
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.metrics.bootstrap import Interval, interval, paired_difference
from schn_ray.evaluation.results import KIND, default_evaluation, read_figures, read_queries
from schn_ray.suites.cells import CELLS, Cell, Ended
from schn_ray.suites.run import UNQUANTISED

RESULTS = "results.parquet"
_CONTROLS = ("cosine", "classifier")


@dataclass(frozen=True)
class CellFigures:
    """What a cell measured.

    Attributes:
        cell: which.
        run: name of its directory in the suite's.
        map: mean average precision of its codes.
        by_class: class -> mean average precision of its queries; None where no query counts.
        train_s: see ``cells.Cost``.
        encode_mflop: see ``cells.Cost``.
    """

    cell: Cell
    run: str
    map: float
    by_class: dict[str, float | None]
    train_s: float | None
    encode_mflop: float


@dataclass(frozen=True)
class Line:
    """A method at one code length on one data set.

    Attributes:
        method: its name.
        cells: one a seed.
        map: mean over queries and seeds, with its interval over queries.
        deviation: standard deviation over the seeds; None for one seed.
        behind: the best method's mAP less this one's, with its interval; None for the best.
        tied: these queries do not tell it apart from the best; true for the best.
        group: 1, 2, ...; each begins with the first method that is told apart from the first of the
            one before.
    """

    method: str
    cells: tuple[CellFigures, ...]
    map: Interval
    deviation: float | None
    behind: Interval | None
    tied: bool
    group: int

    @property
    def train_s(self) -> float | None:
        """Mean over the seeds; None where no training was measured from its beginning."""
        known = [cell.train_s for cell in self.cells if cell.train_s is not None]
        return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Block:
    """A data set at one code length.

    Attributes:
        data: name of the data set.
        bits: of the codes.
        queries: how many.
        gallery: rows.
        protocol: of the split.
        lines: the best first.
        unquantised: control -> what the features reach without a code; empty where unknown.
    """

    data: str
    bits: int
    queries: int
    gallery: int
    protocol: str
    lines: tuple[Line, ...]
    unquantised: dict[str, float]


@dataclass(frozen=True)
class Rank:
    """How a method stands among those that were trained at every length on every data set.

    Attributes:
        method: its name.
        mean: of its ranks; 1 is the best.
        of_data: data set -> mean of its ranks over the lengths.
        of_block: its rank in each block.
    """

    method: str
    mean: float
    of_data: dict[str, float]
    of_block: tuple[int, ...]


@dataclass(frozen=True)
class SuiteTable:
    """All that a suite has measured so far.

    Attributes:
        blocks: one a data set and code length, in the order of the suite.
        refused: (cell, reason) of methods that could not be trained.
    """

    blocks: tuple[Block, ...]
    refused: tuple[tuple[str, str], ...]


def suite_table(out: Path | str, ended: Sequence[Ended]) -> SuiteTable:
    """Read what the cells have measured.

    Args:
        out: directory or URI of the suite.
        ended: the cells that have ended.

    Raises:
        SchnRayError: an evaluation is damaged.
    """
    groups: dict[tuple[str, int], dict[str, list[_Measured]]] = {}
    for one in ended:
        cell = one.cell
        if one.cost is None:
            continue
        figures = read_figures(default_evaluation(join(as_location(out), cell.name)))
        if figures.map is not None:
            group = groups.setdefault((cell.data, cell.bits), {})
            group.setdefault(cell.method, []).append(_measured(out, one, figures))
    return SuiteTable(
        tuple(
            _block(data, bits, methods, _unquantised(out, data))
            for (data, bits), methods in sorted(
                groups.items(), key=lambda group: _order(ended, *group[0])
            )
        ),
        tuple((str(one.cell), one.refused) for one in ended if one.refused),
    )


def write_table(table: SuiteTable, out: Path) -> Path:
    """Write a row for each cell as Parquet.

    Args:
        table: of the suite.
        out: directory to write into.

    Returns:
        The file.
    """
    rows = [
        {
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
            "tied_with_best": line.tied,
            "group": line.group,
            "train_cpu_s": figures.train_s,
            "encode_mflop": figures.encode_mflop,
            "map_by_class": list(figures.by_class.items()),
            "run": figures.run,
        }
        for block in table.blocks
        for line in block.lines
        for figures in line.cells
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
    write_atomically(out / RESULTS, sink.getvalue().to_pybytes())
    return out / RESULTS


def table_text(table: SuiteTable) -> str:
    """Return the table as lines of text.

    Args:
        table: of the suite.
    """
    lines = []
    for block in table.blocks:
        lines.append(
            f"{block.data}, {block.bits} bits: {block.queries:,} queries, {block.gallery:,} "
            f"gallery rows, protocol {block.protocol}"
        )
        width = max(len(line.method) for line in block.lines)
        for line in block.lines:
            spread = "" if line.deviation is None else f" +- {line.deviation:.3f}"
            seconds = "" if line.train_s is None else f"  {line.train_s:,.0f} s"
            lines.append(
                f"  {line.group:2}{'=' if line.tied else ' '} {line.method:{width}}  "
                f"{line.map.mean:.3f}{spread}"
                f"  [{line.map.low:.3f}, {line.map.high:.3f}]{seconds}"
            )
        known = ", ".join(f"{name} {score:.3f}" for name, score in block.unquantised.items())
        lines += [f"  features without a code: {known}"] if known else []
    lines += _ranks_text(table.blocks) if len(table.blocks) > 1 else []
    lines += [f"not trained: {cell}: {reason}" for cell, reason in table.refused]
    lines.append(
        "mAP, exact under ties; +- over seeds, [] over queries (95 %). "
        "=: these queries do not tell it apart from the best; 1, 2 ...: groups, each begins where "
        "a method is told apart from the first of the one before"
    )
    return "\n".join(lines)


def ranking(blocks: Sequence[Block]) -> list[Rank]:
    """Rank the methods that are in every block, the best first.

    Args:
        blocks: of a table.
    """
    ranks_in = [
        {line.method: rank for rank, line in enumerate(block.lines, start=1)} for block in blocks
    ]
    data = list(dict.fromkeys(block.data for block in blocks))
    ranks = []
    for name in set.intersection(*(set(of_block) for of_block in ranks_in)):
        own = [of_block[name] for of_block in ranks_in]
        of_data = {
            one: float(
                np.mean([r for r, block in zip(own, blocks, strict=True) if block.data == one])
            )
            for one in data
        }
        ranks.append(Rank(name, float(np.mean(own)), of_data, tuple(own)))
    return sorted(ranks, key=lambda rank: (rank.mean, rank.method))


def _ranks_text(blocks: Sequence[Block]) -> list[str]:
    ranks = ranking(blocks)
    width = max((len(rank.method) for rank in ranks), default=0)
    return ["mean rank of those trained everywhere"] + [
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
        ("tied_with_best", pa.bool_()),
        ("group", pa.int64()),
        ("train_cpu_s", pa.float64()),
        ("encode_mflop", pa.float64()),
        ("map_by_class", pa.map_(pa.string(), pa.float64())),
        ("run", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class _Measured:
    cell: CellFigures
    figures: Figures
    average_precision: NDArray[np.float64]


def _measured(out: Path | str, one: Ended, figures: Figures) -> _Measured:
    assert one.cost is not None
    assert figures.map is not None
    _, per_query = read_queries(default_evaluation(join(as_location(out), one.cell.name)))
    cell = CellFigures(
        one.cell,
        one.cell.name,
        figures.map,
        {each.name: each.map for each in figures.by_class},
        one.cost.train_s,
        one.cost.encode_mflop,
    )
    return _Measured(cell, figures, per_query["average_precision"])


def _block(
    data: str, bits: int, methods: dict[str, list[_Measured]], unquantised: dict[str, float]
) -> Block:
    precision = {
        name: np.mean([one.average_precision for one in cells], axis=0)
        for name, cells in methods.items()
    }
    order = sorted(precision, key=lambda name: (-float(np.nanmean(precision[name])), name))
    best, groups = order[0], _groups([precision[name] for name in order])
    lines = [
        _line(name, methods[name], precision[name], precision[best], group)
        for name, group in zip(order, groups, strict=True)
    ]
    figures = methods[best][0].figures
    return Block(
        data,
        bits,
        figures.queries,
        figures.gallery,
        figures.protocol,
        tuple(lines),
        unquantised,
    )


def _line(
    name: str,
    cells: list[_Measured],
    precision: NDArray[np.float64],
    best: NDArray[np.float64],
    group: int,
) -> Line:
    scores = [one.cell.map for one in cells]
    known = interval(precision)
    assert known is not None, "its mAP is defined"
    gap = None if precision is best else paired_difference(precision, best)
    return Line(
        name,
        tuple(one.cell for one in cells),
        known,
        float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        gap.interval if gap else None,
        gap is None or gap.interval.low <= 0,
        group,
    )


def _groups(precision: Sequence[NDArray[np.float64]]) -> list[int]:
    """Return the group of each method, given average precisions [Q] of each, the best first."""
    groups, leader = [1], precision[0]
    for one in precision[1:]:
        gap = paired_difference(one, leader)
        apart = gap is not None and gap.interval.low > 0
        leader = one if apart else leader
        groups.append(groups[-1] + apart)
    return groups


def _unquantised(out: Path | str, data: str) -> dict[str, float]:
    evaluation = join(as_location(out), f"{CELLS}/{data}/{UNQUANTISED}")
    controls = read_figures(evaluation).controls if directory_kind(evaluation) == KIND else None
    if controls is None:
        return {}
    scores = {name: controls.scores.get(name) for name in _CONTROLS}
    return {name: score.mean for name, score in scores.items() if score is not None}


def _order(ended: Sequence[Ended], data: str, bits: int) -> tuple[int, int]:
    first = next(number for number, one in enumerate(ended) if one.cell.data == data)
    return first, bits
