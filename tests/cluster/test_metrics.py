"""What a cluster's Prometheus sees of a job: figures among those that Ray exports of itself."""

import re
import urllib.request
from pathlib import Path

import pytest
import ray
from support.image_files import write_tree
from support.processes import wait_for

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.metrics import TrainingFigures
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def exported() -> dict[tuple[str, str], float]:
    """Return our figures by name and work."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(address, timeout=30).read().decode()
    lines = re.findall(r'^ray_schn_ray_(\w+)\{.*work="([^"]+)".*\} (\S+)$', text, re.MULTILINE)
    return {(name, work): float(value) for name, work, value in lines}


def test_prometheus_sees_a_job_and_a_training(tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 15, "dog": 15})
    for name in ("cat/003", "cat/005", "dog/007"):
        (photos / f"{name}.png").write_bytes(b"cut")
    config = PrepareConfig(source=SourceConfig(shard_rows=10, max_bad_share=0.2))
    source = open_source(str(photos), config.source)
    prepare_store(source, config, tmp_path / "store", RayShards("preparing 30 photos", workers=1))
    line = {"iteration": 4, "images_per_second": 250.0, "data_wait": 0.25}
    figures = TrainingFigures()
    figures.show(line | {"validation_map": 0.75})
    figures.show(line | {"validation_map": None})  # not every iteration is validated
    wait_for(lambda: ("rows_total", "preparing 30 photos") in exported())
    wait_for(lambda: ("iterations", "training") in exported())
    seen = exported()
    assert seen["rows_total", "preparing 30 photos"] == 30
    assert seen["quarantined_total", "preparing 30 photos"] == 3
    assert seen["rows_per_second", "preparing 30 photos"] > 0
    assert seen["iterations", "training"] == 4
    assert seen["rows_per_second", "training"] == 250
    assert seen["data_wait", "training"] == 0.25
    assert seen["validation_map", "training"] == 0.75
