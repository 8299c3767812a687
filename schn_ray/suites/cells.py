"""The cells of a suite: a method trained on a data set, at one code length, with one seed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

from schn_ray.core.checked_lines import checked_line, parse_checked_line
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.documents import BadDocument
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import REQUEST
from schn_ray.core.settings import load_settings, merged
from schn_ray.core.storage.files import join, kind_at, read_file, write_file
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import default_evaluation
from schn_ray.models.hasher import load_network
from schn_ray.suites.draws import settings_to_try
from schn_ray.suites.suite import DATA, Suite, store_location
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import train_locally
from schn_ray.tuning.objectives import encoding_cost
from schn_ray.tuning.trial_settings import Values, with_values

CELLS, FEATURES = "cells", "features"


Key = tuple[str, str, int]
"""A data set, a method and a code length."""


@dataclass(frozen=True)
class SuitePiece:
    """A piece of a suite's work, done on one worker.

    Attributes:
        number: in the suite, from 0.
        data: name of the data set.
        method: name of the method.
        bits: of the codes.
    """

    number: int
    data: str
    method: str
    bits: int

    @property
    def rows(self) -> int:
        """One: progress counts pieces."""
        return 1

    @property
    def key(self) -> Key:
        """What seeds and trials are of."""
        return self.data, self.method, self.bits

    def __str__(self) -> str:
        return f"{self.data}, {self.method}, {self.bits} bits"


@dataclass(frozen=True)
class Cell(SuitePiece):
    """One training and its evaluation.

    Attributes:
        seed: of the training.
        trial: which of the settings to try, see ``draws``; 0: the published ones.
    """

    seed: int
    trial: int = 0

    @property
    def name(self) -> str:
        """Name of its directory, in the suite's."""
        settings = f"-trial-{self.trial}" if self.trial else ""
        return f"{CELLS}/{self.data}/{self.method}-{self.bits}-{self.seed}{settings}"

    def __str__(self) -> str:
        settings = f", settings of trial {self.trial}" if self.trial else ""
        return f"{super().__str__()}, seed {self.seed}{settings}"


@dataclass(frozen=True)
class Cost:
    """What a cell took.

    Attributes:
        train_s: seconds of CPU time of the training, all threads; None if it was interrupted.
        encode_mflop: see ``tuning.objectives.encoding_cost``.
    """

    train_s: float | None
    encode_mflop: float


@dataclass(frozen=True)
class Ended:
    """How a cell ended.

    Attributes:
        cell: which.
        cost: what it took; None if it was not trained.
        refused: why it was not trained, or not measured; "" if it was both.
    """

    cell: Cell
    cost: Cost | None
    refused: str = ""

    def __str__(self) -> str:
        if self.cost is None:
            return f"{self.cell}: not trained: {self.refused}"
        if self.refused:
            return f"{self.cell}: trained, not measured: {self.refused}"
        return f"{self.cell}: trained{cpu_time(self.cost.train_s)}"


def cpu_time(seconds: float | None) -> str:
    """Return the end of a line about a training; "" where its time is unknown.

    Args:
        seconds: of CPU time.

    Example:
        >>> cpu_time(0.42)
        ', 0.4 s of CPU time'
    """
    return "" if seconds is None else f", {cpu_seconds(seconds)} s of CPU time"


def cpu_seconds(seconds: float) -> str:
    """Return seconds, with a tenth where they are few.

    Args:
        seconds: of CPU time.

    Example:
        >>> cpu_seconds(0.42), cpu_seconds(1234.5)
        ('0.4', '1,234')
    """
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def cells_of(suite: Suite) -> list[Cell]:
    """List the cells: seed by seed, so that a first table with all methods is there early.

    Args:
        suite: the suite.
    """
    combinations = [
        (data, method, bits, seed)
        for seed in suite.seeds
        for data in suite.placed
        for bits in suite.bits
        for method in suite.method_names
    ]
    return [Cell(number, *values) for number, values in enumerate(combinations)]


def run_cell(cell: Cell, suite: Suite, out: str) -> Ended:
    """Train and evaluate a cell, or go on with it; one that has ended is only read.

    Args:
        cell: which.
        suite: that it belongs to.
        out: directory or URI of the suite.

    Returns:
        How it ended. An error of the method on this data, or a damaged file of the cell, is in it
        and is not raised, so that the others go on.

    Raises:
        OSError: the disk, say, whatever the cell.
        SchnRayError: the same.
    """
    cost = None
    store, run = store_location(cell.data, out), join(out, cell.name)
    features = features_location(cell.data, suite, out)
    try:
        given = settings_of_inputs(store, features)
        config = cell_config(cell, suite, given)
        cost = _trained(config, store, run, features)
        own = {"controls": {"train_rows": 0}}  # they are measured once for all methods
        measured = load_settings(EvaluateConfig, base=merged(deepcopy(suite.evaluate), own))
        with suppress(AlreadyDone):
            evaluate_run(run, store, default_evaluation(run), measured, features=features)
    except Exception as error:  # a library may raise anything for unusual data
        return Ended(cell, cost, _reason(error))
    return Ended(cell, cost)


def _reason(error: Exception) -> str:
    """Return why a cell failed; raise the error if every other would fail as well."""
    of_system = error if isinstance(error, OSError) else error.__cause__
    if isinstance(of_system, OSError) and not isinstance(of_system, FileNotFoundError):
        raise error  # such as a full disk
    return str(error) if isinstance(error, SchnRayError) else f"{type(error).__name__}: {error}"


def features_location(data: str, suite: Suite, out: str) -> str | None:
    """Return where the features of a data set lie; None if it has none.

    Args:
        data: name of the data set.
        suite: that it belongs to.
        out: directory or URI of the suite.
    """
    if suite.data[data].embed is None:
        return None
    return join(out, f"{DATA}/{suite.data[data].images_of or data}/{FEATURES}")


def cell_config(cell: Cell, suite: Suite, given: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a cell's training.

    Args:
        cell: which.
        suite: that it belongs to.
        given: nested settings that follow from the data.

    Raises:
        SchnRayError: a setting that the method does not have.
    """
    own = {"bits": cell.bits, "seed": cell.seed}
    values = merged(merged(deepcopy(dict(given)), suite.settings), own)
    published = train_config(suite.preset, method=cell.method, base=values)
    if not cell.trial:
        return published
    return with_values(published, settings_of_cell(cell, suite))


def settings_of_cell(cell: Cell, suite: Suite) -> Values:
    """Return the settings of a cell that differ from the published ones.

    Args:
        cell: which.
        suite: that it belongs to.
    """
    published = replace(cell, trial=0)
    tries = settings_to_try(cell_config(published, suite, {}), suite.budget, suite.settings)
    return tries[cell.trial]


def _trained(config: TrainConfig, store: str, run: str, features: str | None) -> Cost:
    began, whole = time.process_time(), kind_at(join(run, REQUEST)) is None
    try:
        train_locally(config, store, run, features=features)
    except AlreadyDone:
        if (cost := read_cost(run)) is not None:
            return cost
        whole = False
    used = time.process_time() - began if whole else None
    hasher = load_network(run)
    cost = Cost(used, encoding_cost(hasher.network, hasher.input_shape))
    write_file(_cost_file(run), checked_line(asdict(cost)).encode())
    return cost


def read_cost(run: str) -> Cost | None:
    """Read what a cell took.

    Args:
        run: the cell's run, a directory or a URI.

    Returns:
        None where it was not written, or is damaged.
    """
    try:
        text = read_file(_cost_file(run))
        return Cost(**parse_checked_line(text, _cost_file(run)))
    except (FileNotFoundError, BadDocument, TypeError):
        return None


def _cost_file(run: str) -> str:
    return f"{run}-cost.json"
