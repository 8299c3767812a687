"""A directory that a node does not see is refused before the work, not at its end.

The tests with two nodes mount, and take a minute each: with SCHN_RAY_TRIALS=1, as root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster
from support.image_files import encode_image
from support.processes import as_options, has_cpus, started, wait_for
from support.trained import photo_store
from support.users import TINY

from schn_ray.cluster import shared_storage as module
from schn_ray.cluster.map_shards import RayShards, ShardWorker
from schn_ray.cluster.shared_storage import require_seen, require_shared, shared
from schn_ray.core.directories import PROBE_PREFIX, new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.rows import Shard

can_mount = pytest.mark.skipif(
    "SCHN_RAY_TRIALS" not in os.environ or os.geteuid() != 0 or not shutil.which("unshare"),
    reason="takes a minute, and mounts",
)


@pytest.mark.usefixtures("cluster")
def test_one_node_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ask", lambda *_: pytest.fail("asked"))
    require_shared(tmp_path / "to" / "come")
    require_shared("s3://nobody/has/this")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("cluster")
def test_the_file_is_there_for_the_block_and_never_counts(tmp_path: Path) -> None:
    with new_directory(tmp_path / "codes", "codes", {}, {}) as draft:
        (draft.path / "part").touch()
        (draft.path / f"{PROBE_PREFIX}of a killed process").touch()
        with shared(draft.path) as probe:
            assert probe is not None
            assert [p.name for p in draft.path.glob(".*")] == [probe.name]
            require_seen(probe)
            probe.with_name(f"{probe.name}-left").touch()
    assert '"part"' in (tmp_path / "codes" / "manifest.json").read_text()
    assert PROBE_PREFIX not in (tmp_path / "codes" / "manifest.json").read_text()


def test_a_node_that_came_later_is_refused_by_its_address(tmp_path: Path) -> None:
    worker = ShardWorker(lambda shard: pytest.fail("worked"), tmp_path / "gone" / ".seen-1")
    error = worker.work(Shard(1, 1)).error
    assert isinstance(error, SchnRayError)
    address = ray.util.get_node_ip_address()
    assert f"{address} did not see a file that was written to it" in str(error)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_workers_find_the_file_where_they_write(tmp_path: Path) -> None:
    shards = RayShards("looking", 1, writes=tmp_path)
    (names,) = shards(lambda _: [path.name for path in tmp_path.iterdir()], [Shard(0, 1)])
    assert [name.startswith(PROBE_PREFIX) for name in names] == [True]
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def head() -> Iterator[str]:
    """A cluster of one node with one CPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster.address
    cluster.shutdown()


@contextmanager
def blind_node(head: str, folder: Path) -> Iterator[None]:
    """A second node, on which another disk lies where the folder is."""
    start = f"{Path(sys.executable).parent}/ray start --address={head} --num-cpus=1 --block"
    script = f"mount -t tmpfs none {folder} && exec {start}"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script]) as node:
        try:
            yield
        finally:
            node.terminate()
            node.wait(30)


@pytest.fixture
def nodes(head: str, folder: Path) -> Iterator[str]:
    with blind_node(head, folder):
        wait_for(lambda: has_cpus(head, 2))
        yield head


@pytest.mark.slow
@can_mount
def test_a_directory_of_one_node_is_refused_by_name(folder: Path, nodes: str) -> None:
    store = photo_store(folder.parent / "store", {"cat": 6, "dog": 6})
    settings = as_options((*TINY, "schedule.batch_size=4"))
    for command in (
        ["prepare", "digits", "--out", folder / "made"],
        ["train", store, "--out", folder / "made", "--preset", "digits", *settings],
    ):
        with started(*command, address=nodes) as process:
            _, said = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert "is not the same directory on all nodes: " in said
        assert "Write to a directory that all nodes share, or to an s3:// or gs://" in said
        assert not list(folder.iterdir())
    with started("prepare", "digits", "--out", folder.parent / "seen", address=nodes) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


@pytest.mark.slow
@can_mount
def test_a_node_that_comes_late_is_refused_too(folder: Path, head: str) -> None:
    many = pa.table(
        {
            "id": [str(row) for row in range(9_000)],
            "image": [encode_image(0)] * 9_000,
            "label": ["cat", "dog"] * 4_500,
        }
    )
    pq.write_table(many, folder.parent / "many.parquet", row_group_size=500)
    command = ["prepare", folder.parent / "many.parquet", "--out", folder / "made"]
    options = ["--workers", "1:2", "--set", "source.shard_rows=1"]
    with started(*command, *options, address=head) as process:
        wait_for(lambda: any(folder.glob("made/rows-*")))
        with blind_node(head, folder):
            _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "is not the same directory on all nodes: " in said
    assert not (folder / "made" / "manifest.json").exists()
