"""A store without labels: recall is measured, and what needs labels is missing in plain words."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array
from support.evaluations import evaluated_codes
from support.image_files import write_tree
from support.users import TINY

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation import controls, features
from schn_ray.evaluation.compare import as_table, compare_runs
from schn_ray.evaluation.config import ControlsConfig, EvaluateConfig
from schn_ray.evaluation.evaluate import WITHOUT_LABELS, evaluate_run
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.recall import RecallRanks, neighbour_recalls
from schn_ray.evaluation.results import read_examples, read_figures, read_plot_data, read_queries
from schn_ray.evaluation.text import figures_text
from schn_ray.report.runs import report_runs
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

# the runs were trained on photos of the stores that are evaluated here
CONFIG = EvaluateConfig(recall_at=(1, 5, 20, 10_000), examples=4, audit="report")


ONE = ("schedule.iterations=1", "schedule.epochs=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and their evaluations on the same photos in one folder, without labels."""
    folder = tmp_path_factory.mktemp("unlabelled")
    photos = write_tree(folder / "photos", {"cat": 30, "dog": 30})
    (folder / "flat").mkdir()
    for file in sorted(photos.rglob("*.*")):
        shutil.copy(file, folder / "flat" / f"{file.parent.name}-{file.name}")
    for source, store in (("photos", "labelled"), ("flat", "store")):
        opened = open_source(str(folder / source), SourceConfig())
        prepare_store(opened, PrepareConfig(), folder / store)
    for name, seed in (("run", 0), ("other", 1)):
        config = train_config("digits", None, (*TINY, *ONE, f"seed={seed}"))
        train_locally(config, folder / "labelled", folder / name)
        evaluate_run(folder / name, folder / "store", folder / f"{name}-evaluation", CONFIG)
    return folder


def test_recall_is_that_of_the_codes_on_disk(folder: Path) -> None:
    measured, store = read_figures(folder / "run-evaluation"), open_store(folder / "store")
    _, codes = evaluated_codes(folder / "run-evaluation")
    rows = [store.rows(role) for role in ("query", "gallery")]
    F = [features.features_of(folder / "run", store, part, map_locally) for part in rows]
    own = {"model": (codes[rows[0]], codes[rows[1]])}
    assert measured.controls is not None
    ranks = [RecallRanks(each.k, each.first) for each in measured.controls.recall]
    # 10,000 is more than the gallery has
    assert ranks == [(1, 1), (1, 5), (1, 20), (5, 5), (5, 20), (20, 20)]
    expected = neighbour_recalls(F[0], F[1], own, 12, ranks)["model"]
    ids, values = read_queries(folder / "run-evaluation")
    assert ids == store.ids.take(rows[0]).to_pylist()
    for each, at in zip(measured.controls.recall, ranks, strict=True):
        assert each.model.mean == pytest.approx(expected[at].mean(), rel=1e-12)
        assert each.model.low <= each.model.mean <= each.model.high
        np.testing.assert_allclose(values[each.column], expected[at])
        for name in ("itq", "pca_rotation", "lsh", "random"):
            score = each.scores[name]
            assert score is not None
            assert 0 <= score.low <= score.mean <= score.high <= 1
        gap = each.model_less_itq
        assert gap is not None
        assert gap.interval.mean == pytest.approx(each.model.mean - each.itq.mean, abs=1e-9)


def test_what_needs_labels_is_missing_and_it_says_why(folder: Path) -> None:
    measured = read_figures(folder / "run-evaluation")
    assert measured.without_labels == WITHOUT_LABELS
    for name in ("map", "map_best", "map_interval", "mrr", "empty_balls", "reidentification"):
        assert getattr(measured, name) is None
    for name in ("map_at", "precision_at", "ndcg_at", "pr_curve", "by_class", "side_by_side"):
        assert not getattr(measured, name)
    assert measured.undefined_queries == measured.queries > 0
    assert measured.controls is not None
    assert not any(measured.controls.scores.values())
    text = figures_text(measured)
    for words in ("recall 1@1", " 5@20", "ITQ of the features", "model less ITQ", "has no labels"):
        assert words in text
    for words in ("mAP undefined", "left out", "classifier"):
        assert words not in text
    shown = read_examples(folder / "run-evaluation")
    assert len(shown) == 4
    assert {near.relevant for example in shown for near in example.neighbours} == {None}
    plots = read_plot_data(folder / "run-evaluation")
    assert plots.bits is not None
    assert (plots.at, plots.distances, plots.confusion, plots.map) == ((), None, None, None)


def test_runs_are_compared_by_recall(folder: Path) -> None:
    compared = compare_runs([folder / "run", folder / "other-evaluation"])
    assert compared.figure == "recall 1@1"
    assert compared.methods[0].figures["recall 1@1"].deviation is not None
    assert {"itq", "lsh", "random"} <= set(compared.methods[0].controls)
    assert "recall 1@1" in as_table(compared)


@pytest.mark.parametrize("runs", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_report_shows_recall(folder: Path, tmp_path: Path, runs: int) -> None:
    report_runs([folder / "run", folder / "other"][:runs], [], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    for words in ("Recall of the nearest images", "Recall 5@20", "PCA, random rotation"):
        assert words in page
    assert WITHOUT_LABELS in page
    assert "mean average precision, grades rankings" not in page
    assert "shares a label with the query" not in page


def test_learned_codes_need_labels(folder: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(gallery="learned", audit="report")
    with pytest.raises(SchnRayError, match="--gallery encoded"):
        evaluate_run(folder / "run", folder / "store", tmp_path / "e", config)


def test_controls_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(controls=ControlsConfig(train_rows=0), audit="report")
    evaluate_run(folder / "run", folder / "store", tmp_path / "e", config)
    measured = read_figures(tmp_path / "e")
    assert measured.main_recall is None
    assert figures_text(measured).startswith("no figures")


# --- vectors in place of images


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on labelled vectors, and stores of these vectors with labels and without."""
    folder = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 6)).astype(np.float32)
    columns = {
        "id": [f"r{row}" for row in range(120)],
        "vector": pa.array(X.tolist(), pa.list_(pa.float32(), 6)),
        "label": [str(label) for label in rng.integers(0, 2, 120)],
    }
    for name, chosen in (("labelled", columns), ("store", ["id", "vector"])):
        pq.write_table(pa.table({key: columns[key] for key in chosen}), folder / f"{name}.parquet")
        source = open_source(str(folder / f"{name}.parquet"), SourceConfig())
        prepare_store(source, PrepareConfig(), folder / name)
    backbone = ("backbone.name=features:6", "backbone.weights=null", "bits=8")
    config = train_config(None, None, (*ONE, *backbone), "csq")
    train_locally(config, folder / "labelled", folder / "run")
    return folder


@pytest.mark.parametrize("store", ["labelled", "store"])
def test_recall_is_of_the_vectors_where_a_model_takes_them(
    vectors: Path, tmp_path: Path, store: str
) -> None:
    opened = open_store(vectors / store)
    rows = np.array([4, 1])
    result = features.features_of(vectors / "run", opened, rows, map_locally)
    np.testing.assert_array_equal(result, opened.vectors(rows))
    evaluate_run(vectors / "run", vectors / store, tmp_path / "e", CONFIG)
    measured = read_figures(tmp_path / "e")
    assert measured.protocol == ("random" if store == "labelled" else "unlabelled")
    assert (measured.map is None) == (store == "store")
    assert measured.main_recall is not None
    query, gallery = (opened.rows(role) for role in ("query", "gallery"))
    _, codes = evaluated_codes(tmp_path / "e")
    own = {"model": (codes[query], codes[gallery])}
    at = RecallRanks(1, 1)
    sides = opened.vectors(query), opened.vectors(gallery)
    expected = neighbour_recalls(*sides, own, 8, [at])["model"][at]
    assert measured.main_recall.model.mean == pytest.approx(expected.mean(), rel=1e-12)


def test_a_model_that_takes_images_has_features_of_them(folder: Path) -> None:
    assert not features.reads_vectors(folder / "run", open_store(folder / "store"))


# --- parts


def drawn(rows: int, seed: int) -> LabelledCodes:
    codes = np.random.default_rng(seed).integers(0, 256, (rows, 2), dtype=np.uint8)
    return LabelledCodes(np.arange(rows), codes, csr_array((rows, 0), dtype=np.uint8))


@pytest.mark.parametrize("train", [0, 30])
def test_without_training_rows_nothing_is_fitted(train: int) -> None:
    F = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    labels = csr_array((train, 0), dtype=np.uint8)
    sides = controls.Sides(F[:train], labels, F[:10], F[10:], drawn(10, 1), drawn(50, 2), 16)
    hashes = ["itq", "pca_rotation", "lsh"] if train else []
    assert list(controls.control_codes(sides, 0)) == ["model", *hashes, "random"]


def test_every_k_goes_with_every_larger_rank_below_the_gallery() -> None:
    assert controls.recall_ranks((10, 1, 10, 50), 50) == [(1, 1), (1, 10), (10, 10)]
    assert controls.recall_ranks((10,), 10) == []
