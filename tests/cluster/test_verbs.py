"""Every verb as a user types it, on Ray, over a folder of photos."""

import json
import re
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
import pytest
import ray
import torch
from support.image_files import encode_image, write_tree
from support.shared_training import OPTIONS, config
from support.trained import last_state
from support.trials import TAKES_MINUTES
from support.users import Run

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.train import train_on_ray
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.reader import open_store
from schn_ray.models.model_files import fingerprint
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.training.config import config_from
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally

pytestmark = pytest.mark.usefixtures("cluster")

FAR = 0.05  # two workers: 0.0007 at most; the control with other batches: 0.6 in the median


@pytest.mark.slow
def test_options_not_given_leave_the_config_file_alone(
    schn_ray, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("protocol: cifar10-54k\nseed: 7\n")
    arguments = ["prepare", photos, "--out", tmp_path / "store", "--config", tmp_path / "mine.yaml"]
    answer = schn_ray(*arguments)
    assert (answer.code, "cifar10-54k" in answer.err) == (2, True), answer.err
    answer = schn_ray(*arguments, "--protocol", "random")
    assert answer.code == 0, answer.err
    assert open_store(tmp_path / "store").manifest.config["seed"] == 7


def test_prepare_on_ray_equals_prepare_here(
    schn_ray, photos: Path, store: Path, tmp_path: Path
) -> None:
    answer = schn_ray(
        "prepare", photos, "--out", tmp_path / "store", "--set", "source.shard_rows=5", "--json"
    )
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["counts"]["rows"] == 42
    ours, here = open_store(tmp_path / "store"), open_store(store)
    assert ours.ids.equals(here.ids)
    assert ours.manifest.config["protocol"] == "random"
    assert [ours.image(row) for row in range(42)] == [here.image(row) for row in range(42)]
    for role in ("train", "validation", "query", "gallery"):
        assert ours.rows(role).tolist() == here.rows(role).tolist()


def distances(run: Path, other: Path) -> dict[str, float]:
    """Return how far each weight tensor, code and mean gradient of two runs is apart.

    The distance is the norm of the difference over the norm of the other run's tensor. It cannot be
    held weight by weight: two workers add float32 numbers in another order than one, and Adam
    divides a gradient by the root of its second moment. Where both are near zero, the quotient is
    rounding noise, so that a few weights of half a million differ by whole steps of the learning
    rate. The norm of a tensor hardly notices them; a wrong gradient moves all of its weights.
    """
    ours, theirs = last_state(run), last_state(other)
    assert ours.keys() == theirs.keys()
    return {
        name: float((ours[name].double() - value.double()).norm() / value.double().norm())
        for name, value in theirs.items()
        if value.double().norm() > 0
    }


def test_two_workers_end_where_one_does(runs: dict[int, Path]) -> None:
    one, two = read_metrics(runs[1]), read_metrics(runs[2])
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    alone, together = last_state(runs[1]), last_state(runs[2])
    assert torch.equal(alone["packed"], together["packed"])
    assert max(distances(runs[2], runs[1]).values()) < FAR


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, pytest.param(2, marks=TAKES_MINUTES)])
def test_so_does_a_range_of_workers(
    runs: dict[int, Path], store: Path, tmp_path: Path, most: int
) -> None:
    train_on_ray(config(), store, tmp_path / "run", WorkerRequest(1, most), keep_checkpoints=True)
    if most == 1:
        assert fingerprint(tmp_path / "run") == fingerprint(runs[1])
    assert max(distances(tmp_path / "run", runs[1]).values()) < FAR


@pytest.mark.slow
def test_control_batches_of_another_size_end_elsewhere(
    runs: dict[int, Path], store: Path, tmp_path: Path
) -> None:
    values = read_manifest(runs[1], "run").config
    values["schedule"]["batch_size"] = 4
    train_locally(config_from(values), store, tmp_path / "run", keep_checkpoints=True)
    first, other = read_metrics(runs[1])[0]["loss"], read_metrics(tmp_path / "run")[0]["loss"]
    assert other != pytest.approx(first, rel=1e-2)
    assert median(distances(tmp_path / "run", runs[1]).values()) > 5 * FAR


def test_training_again_on_a_finished_run_says_so(
    schn_ray, runs: dict[int, Path], store: Path
) -> None:
    answer = schn_ray("train", store, "--out", runs[1], *OPTIONS)
    assert answer.code == 0
    assert "is finished already" in answer.err
    answer = schn_ray("train", store, "--out", runs[1], *OPTIONS, "--set", "seed=5")
    assert answer.code == 2
    assert "config.seed: 0 there, 5 now" in answer.err


def test_from_codes_to_pictures(
    schn_ray, runs: dict[int, Path], photos: Path, tmp_path: Path
) -> None:
    codes, index, page = tmp_path / "codes", tmp_path / "index", tmp_path / "found.html"
    settings = ("--set", "source.shard_rows=10", "--workers", "2")
    assert schn_ray("encode", photos, "--model", runs[1], "--out", codes, *settings).code == 0
    assert schn_ray("index", codes, "--out", index).code == 0
    query = photos / "dog" / "003.png"
    answer = schn_ray(
        "search", index, query, "--model", runs[1], "-k", 42, "--json", "--html", page
    )
    assert answer.code == 0, answer.err
    (found,) = json.loads(answer.out)
    distances = {hit["id"]: hit["distance"] for hit in found["hits"]}
    assert distances["dog/003.png"] == 0
    assert len(distances) == 42
    assert page.read_text().count("<img") == 43
    text = schn_ray("search", index, query, "--model", runs[1], "-k", 3).out
    assert len(text.splitlines()) == 4


@pytest.mark.slow
def test_codes_do_not_depend_on_shards_and_workers(
    runs: dict[int, Path], photos: Path, tmp_path: Path
) -> None:
    tables = []
    for name, rows, shards in [("here", 50, None), ("ray", 5, RayShards("encoding", 2))]:
        config = EncodeConfig(source=SourceConfig(shard_rows=rows))
        source = open_source(str(photos), config.source)
        options = () if shards is None else (shards,)
        encode_source(source, runs[1], tmp_path / name, config, *options)
        tables.append(read_codes(tmp_path / name))
    (here, here_codes), (there, their_codes) = tables
    assert here.equals(there)
    assert (here_codes == their_codes).all()


def test_evaluate_says_which_codes(
    schn_ray, runs: dict[int, Path], store: Path, tmp_path: Path
) -> None:
    answer = schn_ray("evaluate", runs[1], "--store", store, "--out", tmp_path / "e", "--json")
    assert answer.code == 0, answer.err
    measured = json.loads(answer.out)
    assert measured["gallery_codes"] == "encoded"
    assert measured["map_worst"] <= measured["map"] <= measured["map_best"]
    assert measured["model"] == fingerprint(runs[1])
    assert measured["controls"]["classifier"]["queries"] == measured["queries"]
    learned = schn_ray(
        "evaluate", runs[1], "--store", store, "--out", tmp_path / "l", "--gallery", "learned"
    )
    assert learned.code == 2
    assert "no gallery row has a learned code" in learned.err
    report = tmp_path / "report.html"
    assert schn_ray("report", runs[1], "--evaluation", tmp_path / "e", "--out", report).code == 0
    assert "gallery codes: encoded" in report.read_text()


@pytest.mark.slow
def test_bad_images_are_quarantined_named_and_counted(
    schn_ray, runs: dict[int, Path], tmp_path: Path
) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 10, "dog": 10})
    (photos / "cat" / "broken.png").write_bytes(encode_image()[:40])
    few = schn_ray("encode", photos, "--model", runs[1], "--out", tmp_path / "codes")
    assert few.code == 3
    assert "1 of 21 rows are bad" in few.err
    assert "cat/broken.png" in few.err
    with_more = ("--set", "source.max_bad_share=0.1")
    allowed = schn_ray(
        "encode", photos, "--model", runs[1], "--out", tmp_path / "codes", *with_more
    )
    assert allowed.code == 0, allowed.err
    assert "quarantined: 1" in allowed.out
    (bad,) = pq.read_table(tmp_path / "codes" / "quarantine.parquet").to_pylist()
    assert (bad["id"], bad["stage"]) == ("cat/broken.png", "decode")


def test_more_workers_than_cpus_are_refused_at_once(
    schn_ray: Run, store: Path, tmp_path: Path
) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    settings = ["--set", f"schedule.batch_size={4 * cpus}", "--workers", cpus + 1]
    answer = schn_ray("train", store, "--out", tmp_path / "run", *OPTIONS, *settings)
    assert answer.code == 2
    # how many are in use depends on whether the workers of the test before have ended
    refusal = rf"{cpus + 1} workers want 1 CPU each, the cluster has {cpus}, \d+ in use"
    assert re.search(refusal, answer.err), answer.err
    assert not (tmp_path / "run").exists()
    answer = schn_ray("train", store, "--out", tmp_path / "run", *OPTIONS, "--workers", 9)
    assert "cannot be shared by 9 workers" in answer.err
