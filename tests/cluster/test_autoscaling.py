"""A cluster whose nodes come when there is work, and go when there is none: Ray's own autoscaler.

Its fake provider starts nodes as processes of this machine. ``ray.cluster_utils`` has a class for
it, ``AutoscalingCluster``, which cannot be used: it begins with ``ray stop --force``, which ends
every Ray of the machine, and reads a file that Ray's package leaves out.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import ray
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG
from support.image_files import write_tree
from support.models import write_model
from support.processes import MARK, as_options, free_port, started, wait_for
from support.trained import photo_store
from support.trials import takes_minutes
from support.users import TINY

from schn_ray.cluster import capacity
from schn_ray.cluster.capacity import GROWS_TO
from schn_ray.cluster.map_shards import _default_workers
from schn_ray.cluster.session import WorkerRequest, cluster_cpus
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.training.metrics_file import read_metrics

# --- what is asked of a cluster that grows


@pytest.fixture
def an_empty_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head without CPUs, as in cluster.yaml."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {})
    monkeypatch.setattr(ray, "available_resources", lambda: {})
    monkeypatch.setattr(capacity, "_known_to_ray", lambda: None)
    monkeypatch.delenv(GROWS_TO, raising=False)


@pytest.fixture
def a_growing_cluster(an_empty_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROWS_TO, '{"CPU": 8, "GPU": 2}')


@pytest.mark.usefixtures("an_empty_cluster")
def test_nodes_that_never_come_are_not_waited_for() -> None:
    with pytest.raises(SchnRayError, match=f"the cluster has 0, 0 in use: .*{GROWS_TO}"):
        WorkerRequest(1, 1, gpus=0).require()
    assert _default_workers() == (1, 1)


@pytest.mark.usefixtures("a_growing_cluster")
def test_nodes_that_come_are_waited_for_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    WorkerRequest(4, 4, cpus=2, gpus=0).require()
    said = capsys.readouterr().err
    assert "4 workers want 2 CPU each, the cluster has 0, 0 in use, and grows to 8; waiting" in said
    with pytest.raises(SchnRayError, match=r"5 workers want 2 CPU each, .* grows to 8: use fewer"):
        WorkerRequest(5, 5, cpus=2, gpus=0).require()
    assert WorkerRequest(2, 2).resources() == {"CPU": 1, "GPU": 1}
    assert WorkerRequest(3, 3).resources() == {"CPU": 1}
    assert (cluster_cpus(), _default_workers()) == (8, (1, 8))


@pytest.mark.usefixtures("an_empty_cluster")
def test_what_ray_knows_of_a_cluster_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_known_to_ray", lambda: {"CPU": 4.0})
    assert (cluster_cpus(), _default_workers()) == (4, (1, 4))


@pytest.mark.usefixtures("an_empty_cluster")
@pytest.mark.parametrize("said", ["", "8", '{"CPU": "many"}', '["CPU"]', '{"CPU": null}'])
def test_a_mistyped_size_is_an_error(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROWS_TO, said)
    with pytest.raises(SchnRayError, match=f"{GROWS_TO}=.*expected"):
        cluster_cpus()


# --- one that does


class Growing(NamedTuple):
    """Where it is, how to get in, and the mark that its processes carry."""

    address: str
    token: dict[str, str]
    mark: str

    def processes(self) -> list[psutil.Process]:
        """List its processes, those of nodes that its autoscaler started as well."""
        return [p for p in psutil.process_iter() if _mark_of(p) == self.mark]

    def daemons(self) -> list[psutil.Process]:
        """List the daemons, one a node."""
        named = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "raylet"]
        return [p for p in named if _mark_of(p) == self.mark]

    def nodes(self) -> int:
        """Count the nodes that work can go to: all but the head."""
        return len(self.daemons()) - 1


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # it has ended
        return None


def description(address: str) -> dict[str, Any]:
    """Describe a head without CPUs, and up to two nodes of one, which go after six seconds."""
    head: dict[str, Any] = {"resources": {}, "node_config": {}, "max_workers": 0}
    node = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    return BASE_READONLY_CONFIG | {
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, "worker": node},
        "head_node_type": "ray.head.default",
    }


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    for _ in range(3):  # on a busy machine, a head's daemon gives up on its agents
        with head(tmp_path_factory.mktemp("growing") / "cluster.json") as cluster:
            if cluster is not None:
                yield cluster
                return
    pytest.fail("the head did not start, three times")


@contextmanager
def head(config: Path) -> Iterator[Growing | None]:
    """Start a head whose nodes come and go; yield None where it did not start."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    address = f"{ray.util.get_node_ip_address()}:{free_port()}"
    cluster = Growing(address, token, secrets.token_hex(8))
    config.write_text(json.dumps(description(address)))
    folder = Path("/tmp") / f"schn_{cluster.mark[:6]}"  # sockets' paths must be short
    fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", MARK: cluster.mark}
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | token | fake
    options = {
        "num-cpus": 0,
        "port": address.rpartition(":")[2],
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "include-dashboard": "false",  # a dozen processes, beside which agents start too slowly
        "autoscaling-config": config,
        "temp-dir": folder,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as process:
        try:
            yield cluster if lives(cluster) else None
        finally:
            for left in cluster.processes():  # by their ids; the nodes are not Ray's to end
                with suppress(psutil.Error):
                    left.kill()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def lives(cluster: Growing) -> bool:
    """Wait for the head's daemon, until it is older than it gets when its agents do not come."""
    wait_for(lambda: bool(cluster.daemons()))
    daemon = cluster.daemons()[0]
    wait_for(lambda: not daemon.is_running() or time.time() - daemon.create_time() > 20)
    return daemon in cluster.daemons()


@takes_minutes
def test_encode_asks_for_nodes_gets_them_and_gives_them_back(
    growing: Growing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 30, "dog": 30})
    model, codes = write_model(tmp_path / "model"), tmp_path / "codes"
    command = ["encode", photos, "--model", model, "--out", codes, "--set", "source.shard_rows=2"]
    for name, value in growing.token.items():
        monkeypatch.setenv(name, value)
    with started(*command, "--workers", "2", address=growing.address) as refused:
        assert refused.wait(180) == 2
        said = refused.stderr.read() if refused.stderr else ""
    assert "2 workers want 1 CPU each, the cluster has 0" in said
    monkeypatch.setenv(GROWS_TO, '{"CPU": 2}')
    with started(*command, "--workers", "2", address=growing.address) as process:
        wait_for(lambda: growing.nodes() == 2 or process.poll() is not None)
        assert process.wait(300) == 0
    assert read_manifest(codes, "codes").counts["encoded"] == 60
    wait_for(lambda: growing.nodes() == 0)


@takes_minutes
def test_training_waits_for_its_nodes(
    growing: Growing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = photo_store(tmp_path, {"cat": 16, "dog": 16}), tmp_path / "run"
    settings = (*TINY, "schedule.iterations=2", "schedule.batch_size=7")
    command = ["train", store, "--out", run, "--preset", "digits", *as_options(settings)]
    for name, value in (growing.token | {GROWS_TO: '{"CPU": 2}'}).items():
        monkeypatch.setenv(name, value)
    with started(*command, "--workers", "2", address=growing.address) as process:
        assert process.wait(400) == 0
    assert [line["workers"] for line in read_metrics(run)] == [2, 2]
    wait_for(lambda: growing.nodes() == 0)
