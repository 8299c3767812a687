"""Trials and their workers find room, or are refused at once; Ray itself is not started."""

from pathlib import Path
from typing import Any

import pytest
import ray

import schn_ray
from schn_ray.cluster import capacity, tune
from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.trials import _DRIVER, _resources
from schn_ray.cluster.tune import SearchBudget, trials_at_once
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.core.storage.cache import CACHE
from schn_ray.core.storage.files import join, read_file
from schn_ray.core.storage.mirror import open_output
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.study_rows import rows_of_study


def nodes(monkeypatch: pytest.MonkeyPatch, *each: tuple[int, int]) -> None:
    """Pretend a cluster of nodes with so many CPUs and GPUs."""
    listed = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in each]
    total = {"CPU": sum(c for c, _ in each), "GPU": sum(g for _, g in each)}
    monkeypatch.setattr(ray, "nodes", lambda: listed)
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(ray, "available_resources", lambda: total)
    monkeypatch.delenv(capacity.GROWS_TO, raising=False)


def test_fewer_cpus_than_one_trial_wants_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes(monkeypatch, (2, 0))
    with pytest.raises(SchnRayError, match="1 trials at once of 1 workers with 3 CPUs"):
        trials_at_once(SearchBudget(5, cpus=3))
    with pytest.raises(SchnRayError, match=r"of 3 workers with 1 CPUs each want 3 CPUs, .* has 2"):
        trials_at_once(SearchBudget(5, workers=3))
    assert trials_at_once(SearchBudget(5, workers=2)) == 1


def test_a_worker_larger_than_any_node_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes(monkeypatch, (2, 0), (2, 1))
    for refuses in (lambda: trials_at_once(SearchBudget(5, cpus=3)), WorkerRequest(cpus=3).require):
        with pytest.raises(SchnRayError, match=r"a worker wants 3 CPU.*, and no node has that"):
            refuses()
    assert trials_at_once(SearchBudget(5, cpus=2, gpus=0)) == 2
    monkeypatch.setenv(capacity.GROWS_TO, '{"CPU": 64}')  # by nodes of a size that nobody knows
    assert trials_at_once(SearchBudget(5, cpus=3, gpus=0)) == 21


@pytest.mark.parametrize(("share", "trials"), [(0.25, 8), (0.5, 4), (1, 2), (2, 1), (0.1, 20)])
def test_trials_share_gpus(monkeypatch: pytest.MonkeyPatch, share: float, trials: int) -> None:
    nodes(monkeypatch, (32, 2))
    budget = SearchBudget(5, gpus=share)
    assert trials_at_once(budget) == trials
    assert budget.request.resources() == {"CPU": 1, "GPU": share}
    with pytest.raises(SchnRayError, match=f"and {share:g} GPUs each want .* has 32 and 2"):
        trials_at_once(SearchBudget(5, at_once=trials + 1, gpus=share))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (SearchBudget(5, gpus=1.5), "--gpu 1.5: a share of one GPU"),
        (SearchBudget(5, gpus=-1), "--gpu -1: a share of one GPU"),
        (SearchBudget(5, workers=2, gpus=0.5), "workers that share a batch cannot share a GPU"),
        (SearchBudget(5, 1, 1, 2, gpus=0.5), "workers that share a batch cannot share a GPU"),
    ],
)
def test_gpus_that_cannot_be_given_are_refused(budget: SearchBudget, message: str) -> None:
    space = validated(Space, {"parameters": {"bits": {"choices": [16, 32]}}})
    with pytest.raises(SchnRayError, match=message):
        tune._check_budget(space, budget)


def test_elastic_trials_find_room_for_their_fewest_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes(monkeypatch, (8, 0))
    budget = SearchBudget(5, workers=2, most_workers=4)
    assert trials_at_once(budget) == 4
    assert (budget.request.least, budget.request.most) == (2, 4)
    settings: dict[str, Any] = {"most_workers": 4, "cpus": 1, "gpus": 0}
    # what drives a trial holds no CPU that a worker, its own or another's, could wait for
    assert _resources(settings, 4).bundles == [_DRIVER]


def test_workers_a_trial_are_a_number_or_a_range(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="workers_per_trial='all': expected a number"):
        schn_ray.tune("store", "quick", 5, tmp_path / "search", workers_per_trial="all")


def searched(path: Path, trials: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    space = validated(Space, {"parameters": {"bits": {"integer": [8, 64]}}, "sampler": "random"})
    search = Search(path, space, base_config(space, None, None, ()))
    while search.count_started() < trials:
        proposal = search.propose()
        assert proposal
        search.finish(proposal.number, Outcome("complete", {"validation_map": 0.5}))


def test_of_two_drivers_of_a_study_at_a_uri_the_first_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"memory://{tmp_path.name}/search"

    def drive_while_another_does() -> None:
        monkeypatch.setenv(CACHE, str(tmp_path / "one"))
        with open_output(uri) as first:
            searched(first.local, 2)
            first.send()
            monkeypatch.setenv(CACHE, str(tmp_path / "other"))  # of another machine
            with open_output(uri) as second:
                second.fetch_all()
                searched(second.local, 4)  # it goes on from the two trials of the first
                second.send()
            searched(first.local, 3)
            first.send()

    with pytest.raises(SchnRayError, match="another process has begun to write"):
        drive_while_another_does()
    (tmp_path / STUDY).write_bytes(read_file(join(uri, STUDY)))
    assert [row.number for row in rows_of_study(tmp_path)] == [0, 1, 2, 3]
