"""SIGKILL of ``prepare`` on Ray: the same call does only the rest.

benchmarks/scale/prepare.py kills more often.
"""

from pathlib import Path

import pytest
import ray
from support.image_files import write_tree
from support.processes import started, wait_for

from schn_ray.cluster.map_shards import RayShards
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.slow]

SHARDS = 150
ATTEMPTS = 5


def finished(store: Path) -> dict[str, int]:
    done = {path.stem for path in store.glob("receipts/*.receipt")}
    return {p.name: p.stat().st_mtime_ns for p in store.glob("rows-*.arrow") if p.stem in done}


def killed(photos: Path, out: Path) -> dict[str, int]:
    """Kill a driver after five shards; return the shards that were finished."""
    arguments = ["prepare", photos, "--out", out, "--set", "source.shard_rows=2", "--workers", "1"]
    address = ray.get_runtime_context().gcs_address
    with started(*arguments, address=address) as process:
        wait_for(lambda: len(finished(out)) >= 5)
        process.kill()
    return finished(out)


def test_a_kill_of_the_driver_changes_no_row(tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": SHARDS, "dog": SHARDS})
    config = PrepareConfig(source=SourceConfig(shard_rows=2))
    source = open_source(str(photos), config.source)
    for attempt in range(ATTEMPTS):  # on a busy machine the kill may come after the last shard
        out = tmp_path / f"store-{attempt}"
        before = killed(photos, out)
        if len(before) < SHARDS:
            break
    assert 5 <= len(before) < SHARDS, "the kill came too late to be a test"
    prepare_store(source, config, out, RayShards("preparing", 2))
    assert before.items() <= finished(out).items()
    undisturbed = prepare_store(source, config, tmp_path / "whole")
    assert open_store(out).manifest.fingerprint == undisturbed.fingerprint
