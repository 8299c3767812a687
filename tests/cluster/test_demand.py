"""What is asked of a cluster that does not have it, or not now."""

import pytest
import ray
from support.processes import free_port

from schn_ray.cluster.session import WorkerRequest, ray_session
from schn_ray.core.errors import SchnRayError


@pytest.fixture
def four_cpus_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 3.0, "GPU": 1.0})
    node = {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])


@pytest.mark.parametrize("before", ["", "ray://"])
def test_an_address_where_nobody_answers_is_an_error(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for port in (free_port(), 99_999):
        monkeypatch.setenv("RAY_ADDRESS", f"{before}127.0.0.1:{port}")
        with pytest.raises(SchnRayError, match=f"answers at .*127.0.0.1:{port}"), ray_session():
            pass


@pytest.mark.usefixtures("four_cpus_and_a_gpu")
@pytest.mark.parametrize(
    ("demand", "message"),
    [
        (WorkerRequest(5, 8, gpus=0), "5 workers want 1 CPU each, the cluster has 4, 1 in use"),
        (
            WorkerRequest(2, 2, cpus=3, gpus=0),
            "2 workers want 3 CPU each, the cluster has 4, 1 in use",
        ),
        (WorkerRequest(2, 2, gpus=1), "2 workers want 1 GPU each, the cluster has 1, 0 in use"),
    ],
)
def test_more_than_there_is_is_an_error(demand: WorkerRequest, message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        demand.require()


@pytest.mark.usefixtures("four_cpus_and_a_gpu")
def test_what_is_in_use_is_waited_for_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    WorkerRequest(4, 4, gpus=0).require()
    said = capsys.readouterr().err
    assert "4 workers want 1 CPU each, the cluster has 4, 1 in use; waiting" in said
    WorkerRequest(2, 8, gpus=0).require()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("four_cpus_and_a_gpu")
def test_gpus_are_taken_where_there_are_enough() -> None:
    assert WorkerRequest(1, 4).resources() == {"CPU": 1, "GPU": 1}
    assert WorkerRequest(2, 4, cpus=2).resources() == {"CPU": 2}


@pytest.mark.parametrize(("too_slow", "starts"), [(2, True), (3, False)])
def test_a_ray_that_is_too_slow_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch, too_slow: int, starts: bool
) -> None:
    tried = list[int]()

    def init(**_: object) -> None:
        tried.append(1)
        if len(tried) <= too_slow:
            raise Exception("The current node timed out during startup. This could happen ...")

    for name, patched in {"init": init, "is_initialized": bool, "shutdown": lambda: None}.items():
        monkeypatch.setattr(ray, name, patched)
    if starts:
        with ray_session():
            assert len(tried) == 3
    else:
        with pytest.raises(SchnRayError, match="too much else to do"), ray_session():
            pass


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", bool)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(SchnRayError, match=r"at RAY_ADDRESS=10\.0\.0\.1:6379"), ray_session():
        pass
