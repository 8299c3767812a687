"""The table of a suite: every method's figures over its seeds, and which differences may be chance.

Within a data set and a code length, each method is compared with the best one, query by query, with
its average precision averaged over the seeds (paired bootstrap over queries). Methods whose
interval of the difference holds 0 are not told apart from the best by these queries. The first that
is told apart from the first of its group begins the next.

Methods with the best of several settings are compared among themselves, in blocks of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location, join
from schn_ray.data.splits.protocols import find_protocol
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.metrics.bootstrap import Interval, interval, paired_difference
from schn_ray.evaluation.results import KIND, default_evaluation, read_figures, read_queries
from schn_ray.suites.cells import CELLS, Cell, Ended
from schn_ray.suites.run import UNQUANTISED
from schn_ray.suites.trials import Choice

_CONTROLS = ("cosine", "classifier")


@dataclass(frozen=True)
class CellFigures:
    """What a cell measured.

    Attributes:
        cell: which.
        run: name of its directory in the suite's.
        map: mean average precision of its codes.
        published_map: the same of the first ranks, as ``Block.published_rank`` says, divided by the
            hits as in published tables; None where the protocol has no such rank.
        by_class: class -> mean average precision of its queries; None where no query counts.
        train_s: see ``cells.Cost``.
        encode_mflop: see ``cells.Cost``.
    """

    cell: Cell
    run: str
    map: float
    published_map: float | None
    by_class: dict[str, float | None]
    train_s: float | None
    encode_mflop: float


@dataclass(frozen=True)
class Tuned:
    """What a method's trials were worth.

    Attributes:
        choice: the best settings.
        published: mAP with the published settings, with its interval over queries.
        gain: mAP with the best settings less that, with its interval; None where the published
            settings are the best.
    """

    choice: Choice
    published: Interval
    gain: Interval | None


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
        tuned: what its trials were worth; None for published settings.
    """

    method: str
    cells: tuple[CellFigures, ...]
    map: Interval
    deviation: float | None
    behind: Interval | None
    tied: bool
    group: int
    tuned: Tuned | None = None

    @property
    def train_s(self) -> float | None:
        """Mean over the seeds; None where no training was measured from its beginning."""
        known = [cell.train_s for cell in self.cells if cell.train_s is not None]
        return float(np.mean(known)) if known else None

    @property
    def published_map(self) -> float | None:
        """Mean over the seeds, see ``CellFigures.published_map``."""
        known = [cell.published_map for cell in self.cells if cell.published_map is not None]
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
        trials: settings that each method could try; 1: the published ones alone.
        spoiling: what the split audit found that spoils figures; empty unless the suite allows it.
    """

    data: str
    bits: int
    queries: int
    gallery: int
    protocol: str
    lines: tuple[Line, ...]
    unquantised: dict[str, float]
    trials: int = 1
    spoiling: tuple[str, ...] = ()

    @property
    def published_rank(self) -> int | None:
        """The k of mAP@k in published tables of the protocol; None where all ranks count."""
        return find_protocol(self.protocol).published_rank

    @property
    def title(self) -> str:
        """Data set and length, and which settings if not the published ones."""
        return ", ".join(
            [self.data, f"{self.bits} bits", *([self.settings] if self.is_tuned else [])]
        )

    @property
    def is_tuned(self) -> bool:
        """Whether each method has the best of several settings, not the published ones."""
        return self.trials > 1

    @property
    def settings(self) -> str:
        """Which settings the methods have."""
        return f"best of {self.trials} settings" if self.is_tuned else "published settings"


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
        blocks: one a data set and code length, in the order of the suite; where methods were tuned,
            one more with the best settings of each.
        refused: (cells, trial or data set, reason) of what could not be trained or measured; cells
            of a method on a data set that have one reason are one entry.
    """

    blocks: tuple[Block, ...]
    refused: tuple[tuple[str, str], ...]

    @property
    def by_budget(self) -> list[list[Block]]:
        """The blocks of published settings, and those of the best ones; none is empty."""
        parts = [[b for b in self.blocks if b.is_tuned is tuned] for tuned in (False, True)]
        return [blocks for blocks in parts if blocks]


def suite_table(
    out: Path | str, ended: Sequence[Ended], choices: Sequence[Choice] = (), trials: int = 1
) -> SuiteTable:
    """Read what the cells have measured.

    Args:
        out: directory or URI of the suite.
        ended: the cells that have ended.
        choices: the best settings of methods whose trials have ended.
        trials: settings that each method could try.

    """
    groups: dict[tuple[str, int], _Cells] = {}
    refused: dict[tuple[str, str, str], list[Cell]] = {}
    unlabelled = dict[str, str]()
    for one in ended:
        cell = one.cell
        if one.cost is None or one.refused:
            refused.setdefault((cell.data, cell.method, one.refused), []).append(cell)
            continue
        evaluation = default_evaluation(join(as_location(out), cell.name))
        try:
            measured = _measured(one, evaluation)
        except SchnRayError as error:
            again = f"remove {evaluation}, and the same command makes it again"
            refused[cell.data, cell.method, f"{error}: {again}"] = [cell]
            continue
        if measured is None:
            unlabelled[cell.data] = f"no mAP without labels; {evaluation} has recall"
            continue
        group = groups.setdefault((cell.data, cell.bits), {})
        group.setdefault((cell.method, cell.trial), []).append(measured)
    blocks = []
    for (data, bits), cells in sorted(groups.items(), key=lambda group: _order(ended, *group[0])):
        published = {name: own for (name, trial), own in cells.items() if not trial}
        block = _block(data, bits, published, _unquantised(out, data))
        own = [one for one in choices if (one.data, one.bits) == (data, bits)]
        blocks += [block, *_tuned_block(block, cells, own, trials)]
    failures = [failure for choice in choices for failure in choice.failures]
    cells_refused = [(_text_of(cells), reason) for (_, _, reason), cells in refused.items()]
    return SuiteTable(tuple(blocks), (*cells_refused, *unlabelled.items(), *failures))


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


@dataclass(frozen=True, eq=False)
class _Measured:
    cell: CellFigures
    figures: Figures
    average_precision: NDArray[np.float64]


_Cells = dict[tuple[str, int], list[_Measured]]  # method, trial -> its seeds, of one block


def _measured(one: Ended, evaluation: str) -> _Measured | None:
    assert one.cost is not None
    figures = read_figures(evaluation)
    if figures.map is None:
        return None
    _, per_query = read_queries(evaluation)
    rank = find_protocol(figures.protocol).published_rank
    at = figures.map_at.get(rank) if rank else None
    cell = CellFigures(
        one.cell,
        one.cell.name,
        figures.map,
        at.hits if at else None,
        {each.name: each.map for each in figures.by_class},
        one.cost.train_s,
        one.cost.encode_mflop,
    )
    return _Measured(cell, figures, per_query["average_precision"])


def _block(
    data: str, bits: int, methods: dict[str, list[_Measured]], unquantised: dict[str, float]
) -> Block:
    precision = {name: _over_seeds(cells) for name, cells in methods.items()}
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
        spoiling=figures.audit.spoiling,
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


def _tuned_block(
    published: Block, cells: _Cells, choices: Sequence[Choice], trials: int
) -> list[Block]:
    """Return the block of the best settings, if the cells of any method's have ended."""
    best = {choice.method: choice for choice in choices if (choice.method, choice.trial) in cells}
    if not best:
        return []
    own = {name: cells[name, choice.trial] for name, choice in best.items()}
    block = _block(published.data, published.bits, own, published.unquantised)
    lines = tuple(replace(line, tuned=_tuned(best[line.method], cells)) for line in block.lines)
    return [replace(block, lines=lines, trials=trials)]


def _tuned(choice: Choice, cells: _Cells) -> Tuned:
    """Compare the best settings with the published ones, on the seeds that both have."""
    best = cells[choice.method, choice.trial]
    seeds = {one.cell.cell.seed for one in best}
    published = [one for one in cells[choice.method, 0] if one.cell.cell.seed in seeds]
    known = interval(_over_seeds(published))
    assert known is not None, "its mAP is defined"
    gain = None
    if choice.trial:
        gain = paired_difference(_over_seeds(published), _over_seeds(best))
    return Tuned(choice, known, gain.interval if gain else None)


def _over_seeds(cells: Sequence[_Measured]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([one.average_precision for one in cells], axis=0)
    return mean


def _groups(precision: Sequence[NDArray[np.float64]]) -> list[int]:
    """Return the group of each method, given average precisions [Q] of each, the best first."""
    groups, leader = [1], precision[0]
    for one in precision[1:]:
        gap = paired_difference(one, leader)
        apart = gap is not None and gap.interval.low > 0
        leader = one if apart else leader
        groups.append(groups[-1] + apart)
    return groups


def _text_of(cells: Sequence[Cell]) -> str:
    first, *others = map(str, cells)
    return f"{first}, and {len(others)} more" if others else first


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
