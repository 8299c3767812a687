"""Figures of the running job among Ray's own metrics, so that a cluster's Prometheus sees them.

Ray adds ``ray_`` to the names, and says which node, job and process a figure is of.

schn_ray_rows_total          rows done, also those that were quarantined
schn_ray_quarantined_total   rows that could not be read
schn_ray_rows_per_second     since the job began; of training, in the last iteration
schn_ray_iterations          outer iterations of training that are done
schn_ray_data_wait           share of an iteration in which training waited for images
schn_ray_validation_map      mAP on the validation rows
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

_WORK = "work"  # the tag that has the name of the work, such as "encoding"


class ShardFigures:
    """Figures of a job over shards.

    Args:
        what: the name of the work, as on its progress line.
    """

    def __init__(self, what: str) -> None:
        self._rows = _counter("rows", "Rows done.", what)
        self._quarantined = _counter("quarantined", "Rows that could not be read.", what)
        self._rate = _gauge("rows_per_second", "Rows done a second.", what)
        self._started, self._done = time.monotonic(), 0

    def add(self, rows: int, result: object) -> None:
        """Count a shard that is done.

        Args:
            rows: of the shard.
            result: of the job's function; one that writes parts says how many are quarantined.
        """
        self._done += rows
        self._rate.set(self._done / max(time.monotonic() - self._started, 1e-9))
        for counter, count in (
            (self._rows, rows),
            (self._quarantined, getattr(result, "quarantined", 0)),
        ):
            if count:  # Ray's counters refuse 0
                counter.inc(count)


class TrainingFigures:
    """Figures of a training run."""

    def __init__(self) -> None:
        what = "training"
        self._iterations = _gauge("iterations", "Outer iterations done.", what)
        self._rate = _gauge("rows_per_second", "Rows done a second.", what)
        self._wait = _gauge("data_wait", "Share of the time spent waiting for images.", what)
        self._score = _gauge("validation_map", "mAP on the validation rows.", what)

    def show(self, line: Mapping[str, Any]) -> None:
        """Show the measurements of an iteration.

        Args:
            line: of ``metrics.jsonl``, see ``training.loop.Iteration``.
        """
        self._iterations.set(line["iteration"])
        self._rate.set(line["images_per_second"])
        self._wait.set(line["data_wait"])
        if line["validation_map"] is not None:
            self._score.set(line["validation_map"])


def _counter(name: str, meaning: str, what: str) -> Counter:
    counter = Counter(f"schn_ray_{name}", description=meaning, tag_keys=(_WORK,))
    counter.set_default_tags({_WORK: what})
    return counter


def _gauge(name: str, meaning: str, what: str) -> Gauge:
    gauge = Gauge(f"schn_ray_{name}", description=meaning, tag_keys=(_WORK,))
    gauge.set_default_tags({_WORK: what})
    return gauge
