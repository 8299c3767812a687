"""What a cluster's Prometheus sees of a job: figures among those that Ray exports of itself."""

import re
import urllib.request
from dataclasses import dataclass, field

import pytest
import ray
from support.processes import wait_for

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.metrics import TrainingFigures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


@dataclass(frozen=True)
class Piece:
    """A shard; as a result, a receipt of it."""

    number: int
    rows: int = 10
    quarantined: list[str] = field(default_factory=lambda: ["bad.png"])


def itself(piece: Piece) -> Piece:
    return piece


def exported() -> dict[tuple[str, str], float]:
    """Return our figures by name and work."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(address, timeout=30).read().decode()
    lines = re.findall(r'^ray_schn_ray_(\w+)\{.*work="([^"]+)".*\} (\S+)$', text, re.MULTILINE)
    return {(name, work): float(value) for name, work, value in lines}


def test_prometheus_sees_a_job_and_a_training() -> None:
    pieces = [Piece(number) for number in range(3)]
    results = list(RayShards("counting pieces", workers=1)(itself, pieces))
    assert sorted(piece.number for piece in results) == [0, 1, 2]
    line = {"iteration": 4, "images_per_second": 250.0, "data_wait": 0.25}
    figures = TrainingFigures()
    figures.show(line | {"validation_map": 0.75})
    figures.show(line | {"validation_map": None})  # not every iteration is validated
    wait_for(lambda: ("rows_total", "counting pieces") in exported())
    wait_for(lambda: ("iterations", "training") in exported())
    seen = exported()
    assert seen["rows_total", "counting pieces"] == 30
    assert seen["quarantined_total", "counting pieces"] == 3
    assert seen["rows_per_second", "counting pieces"] > 0
    assert seen["iterations", "training"] == 4
    assert seen["rows_per_second", "training"] == 250
    assert seen["data_wait", "training"] == 0.25
    assert seen["validation_map", "training"] == 0.75
