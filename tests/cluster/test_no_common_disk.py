"""Three nodes with a disk each and none in common, a bucket for all: nodes die, nothing is lost.

Takes minutes, and mounts: SCHN_RAY_TRIALS=1, as root.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from support.buckets import served_bucket
from support.image_files import write_tree
from support.processes import as_options, has_cpus, started, wait_for
from support.trials import TRIALS
from support.users import TINY

from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.train import train_on_ray
from schn_ray.core.storage.cache import CACHE
from schn_ray.core.storage.files import join, names_in, read_file, write_file
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.models.model_files import fingerprint
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.index import open_index
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        TRIALS not in os.environ or os.geteuid() != 0 or not shutil.which("unshare"),
        reason="takes minutes, and mounts",
    ),
]
SETTINGS = (*TINY, "schedule.iterations=8", "schedule.epochs=2", "schedule.batch_size=7")
SHARD_ROWS = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("nodes") / "photos", {"cat": 60, "dog": 60})


@pytest.fixture(scope="module")
def undisturbed(photos: Path, cluster: None) -> Path:
    """A store, a run of two workers and codes, all on this machine's disk."""
    root = photos.parent
    source = open_source(str(photos), SourceConfig(shard_rows=SHARD_ROWS))
    prepare_store(source, PrepareConfig(source=SourceConfig(shard_rows=SHARD_ROWS)), root / "store")
    config = train_config("digits", None, SETTINGS)
    train_on_ray(config, root / "store", root / "run", WorkerRequest(2, 2))
    encode_source(source, root / "run", root / "codes", EncodeConfig())
    return root


class Nodes:
    """Nodes with a CPU each and a disk of their own at the same path."""

    def __init__(self, address: str, disk: Path) -> None:
        self.address, self._disk = address, disk
        self._there: list[subprocess.Popen[bytes]] = []

    def add(self) -> None:
        start = f"{Path(sys.executable).parent}/ray start --address={self.address} --num-cpus=1"
        script = f"mount -t tmpfs none {self._disk} && exec {start} --block"
        here = {CACHE: str(self._disk), "TMPDIR": str(self._disk)}
        self._there.append(
            subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script],
                env=os.environ | here,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def revive(self) -> None:
        """Start nodes again that gave up: Ray allows 30 s, too little on a busy machine."""
        for process in [one for one in self._there if one.poll() is not None]:
            self._there.remove(process)
            self.add()

    def lose(self) -> None:
        """SIGKILL all of the node that came first."""
        process = self._there.pop(0)
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            one.kill()
        process.wait(60)

    def end(self) -> None:
        while self._there:
            self.lose()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    (tmp_path / "disk").mkdir()
    found = Nodes(head.address, tmp_path / "disk")
    try:
        for _ in range(3):
            found.add()
        yield found
    finally:
        found.end()
        head.shutdown()


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    with served_bucket("nodes", tmp_path / "driver-cache") as uri:
        yield uri


@contextmanager
def running(nodes: Nodes, *arguments: object) -> Iterator[None]:
    """Run a verb on the nodes; wait for its end after the block."""
    with started(*arguments, address=nodes.address) as process:
        yield
        code = process.wait(400)
        assert process.stderr
        assert code == 0, process.stderr.read()


def run(nodes: Nodes, *arguments: object) -> None:
    with running(nodes, *arguments):
        pass


def wait_for_all(nodes: Nodes) -> None:
    def all_are_there() -> bool:
        nodes.revive()
        return has_cpus(nodes.address, 3)

    wait_for(all_are_there, 400)


def test_the_whole_chain_loses_nodes_on_the_way(
    undisturbed: Path, photos: Path, bucket: str, nodes: Nodes
) -> None:
    wait_for_all(nodes)
    shard = f"source.shard_rows={SHARD_ROWS}"
    store, trained, codes = (join(bucket, name) for name in ("store", "run", "codes"))
    for file in photos.rglob("*.png"):
        write_file(join(bucket, f"photos/{file.relative_to(photos)}"), file.read_bytes())

    run(nodes, "prepare", join(bucket, "photos"), "--out", store, "--set", shard, "--workers", "3")
    training = ["--preset", "digits", *as_options(SETTINGS), "--workers", "2"]
    with running(nodes, "train", store, "--out", trained, *training):
        wait_for(lambda: len(read_metrics(trained)) >= 2)
        nodes.lose()
        nodes.add()
    assert fingerprint(trained) == fingerprint(undisturbed / "run")
    assert [line["iteration"] for line in read_metrics(trained)] == list(range(1, 9))

    wait_for_all(nodes)
    encoding = ["--model", trained, "--out", codes, "--set", shard, "--workers", "3"]
    with running(nodes, "encode", store, *encoding):
        wait_for(lambda: len(names_in(codes)) >= 6)
        time.sleep(0.1)
        nodes.lose()
    table, packed = read_codes(codes)
    wanted, wanted_codes = read_codes(undisturbed / "codes")
    assert table["id"].to_pylist() == wanted["id"].to_pylist()
    assert packed.tobytes() == wanted_codes.tobytes()

    run(nodes, "index", codes, "--out", join(bucket, "index"))
    assert len(open_index(join(bucket, "index"))) == len(packed)
    found = ["--queries", codes, "--out", join(bucket, "matches"), "-k", "3", "--workers", "2"]
    run(nodes, "search", join(bucket, "index"), *found)
    run(nodes, "evaluate", trained, "--store", store, "--out", join(bucket, "evaluation"))
    assert "manifest.json" in names_in(join(bucket, "matches"))
    assert "manifest.json" in names_in(join(bucket, "evaluation"))


SPACE = """
preset: digits
fixed: {bits: 12, backbone.base_channels: 4, backbone.image_size: 8, method.semantic_dim: 16,
        method.latent_dim: 16, schedule.iterations: 2, schedule.epochs: 1,
        schedule.decay_after: [1]}
parameters:
  optimiser.learning_rate: {log: [1.0e-4, 1.0e-2]}
start: [{}]
pruning: {grace: 1, factor: 2}
"""


def test_a_search_whose_command_is_killed(
    photos: Path, bucket: str, nodes: Nodes, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    store, out = join(bucket, "store"), join(bucket, "search")
    validated = PrepareConfig(validation_share=0.3)
    prepare_store(open_source(str(photos), SourceConfig()), validated, store)
    wait_for_all(nodes)
    command = ["tune", store, "--space", space, "--trials", "5", "--at-once", "2", "--out", out]
    with started(*command, address=nodes.address) as process:
        later = [join(out, f"trials/{n:04}") for n in (2, 3, 4)]
        wait_for(lambda: process.poll() is not None or any(map(read_metrics, later)), 400)
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.kill()
    run(nodes, *command)
    counts = json.loads(read_file(join(out, "manifest.json")))["counts"]
    assert (counts["trials"], counts["failed"]) == (5, 0)
    assert counts["complete"] + counts["pruned"] == 5
    assert {"study.jsonl", "best.yaml", "trials.csv", "report.html"} <= names_in(out)
    assert names_in(join(out, "trials")) == {f"{n:04}" for n in range(5)}
