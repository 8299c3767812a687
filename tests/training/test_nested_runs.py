"""A run of nested codes: it goes on after a kill, and its codes are cut to any of its lengths."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits
from support.kills import killed_after

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation.results import default_evaluation, read_figures, read_queries
from schn_ray.evaluation.text import figures_text
from schn_ray.models.load import load
from schn_ray.report.tables import length_rows
from schn_ray.retrieval.code_files import packed_codes
from schn_ray.retrieval.queries import same_model
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally

LENGTHS = (12, 16, 40)
WIDTH = 64
SETTINGS = (
    f"nested={list(LENGTHS)}",
    "schedule.iterations=2",
    "schedule.epochs=2",
    "schedule.batch_size=32",
    "optimiser.learning_rate=1e-2",
)
SMALL_SCHN = ("method.semantic_dim=16", "method.latent_dim=16", "method.adversarial=0")


def settings_of(method: str) -> TrainConfig:
    more = SMALL_SCHN if method == "schn-plus" else ()
    base = {"backbone": {"name": f"features:{WIDTH}", "weights": None}}
    return train_config(None, None, (*SETTINGS, *more), method, base)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as vectors of 64 pixels."""
    folder = tmp_path_factory.mktemp("vectors")
    np.save(folder / "digits.npy", load_digits().data[:200].astype(np.float32))
    labels = "".join(f"{digit}\n" for digit in load_digits().target[:200])
    (folder / "digits.labels.txt").write_text(labels)
    return folder / "digits.npy"


@pytest.fixture(scope="module")
def store(vectors: Path) -> Path:
    config = PrepareConfig(train_share=0.7, validation_share=0.1, query_share=0.2)
    prepare_store(open_source(str(vectors), config.source), config, vectors.parent / "store")
    return vectors.parent / "store"


@pytest.fixture(scope="module", params=["csq", "schn-plus", "dsdh"])
def trained(
    request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A run of a method with fixed codes, with one network, and with codes that are solved."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train_locally(settings_of(request.param), store, out)
    return request.param, out


def test_a_killed_run_ends_as_an_undisturbed_one(
    trained: tuple[str, Path], store: Path, tmp_path: Path
) -> None:
    method, run = trained
    with killed_after(1):
        train_locally(settings_of(method), store, tmp_path / "run")
    train_locally(settings_of(method), store, tmp_path / "run")
    assert [line["loss"] for line in read_metrics(tmp_path / "run")] == [
        line["loss"] for line in read_metrics(run)
    ]
    X = open_store(store).vectors(np.arange(100))
    assert np.array_equal(load(tmp_path / "run").relaxed_of(X), load(run).relaxed_of(X))


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    train_locally(settings_of("csq"), store, out)
    return out


@pytest.mark.parametrize("bits", LENGTHS)
def test_cut_codes_are_the_first_bits_of_the_whole_ones(
    bits: int, run: Path, vectors: Path, tmp_path: Path
) -> None:
    whole = schn_ray.encode(vectors, run, tmp_path / "whole")
    cut = schn_ray.encode(vectors, run, tmp_path / "cut", bits=bits, settings={"relaxed": True})
    first, all_bits = (packed_codes(codes.to_arrow()) for codes in (cut, whole))
    unpacked = np.unpackbits(all_bits, axis=1, bitorder="little")
    assert np.array_equal(first, np.packbits(unpacked[:, :bits], axis=1, bitorder="little"))
    assert read_manifest(tmp_path / "cut", "codes").config["bits"] == bits
    assert len(cut.to_arrow()["relaxed"][0]) == bits
    assert "bits" in read_manifest(tmp_path / "whole", "codes").config


def test_a_length_that_was_not_trained_is_refused_before_anything_is_written(
    run: Path, vectors: Path, tmp_path: Path
) -> None:
    with pytest.raises(SchnRayError, match="trained for codes of 12, 16, 40 bits, not of 20"):
        schn_ray.encode(vectors, run, tmp_path / "codes", bits=20)
    assert not (tmp_path / "codes").exists()


def test_an_index_of_cut_codes_is_searched_with_the_whole_model(
    run: Path, vectors: Path, tmp_path: Path
) -> None:
    codes = schn_ray.encode(vectors, run, tmp_path / "codes", bits=16)
    index = schn_ray.open_index(schn_ray.build_index(codes, tmp_path / "index"))
    hasher = load(run)
    assert (hasher.bits, same_model(index, hasher).bits) == (40, 16)
    X = np.load(vectors)[7]
    (result,) = schn_ray.search(tmp_path / "index", X, model=run, k=3)
    alone = packed_codes(codes.to_arrow())
    distances = np.bitwise_count(alone ^ alone[7]).sum(axis=1)
    assert [hit.distance for hit in result.hits] == sorted(distances)[:3]


def test_the_model_says_its_lengths(run: Path) -> None:
    assert yaml.safe_load((run / "model" / "hasher.yaml").read_text())["lengths"] == [*LENGTHS]
    assert "the first 12, 16, 40 bits are codes" in (run / "model" / "README.md").read_text()
    assert load(run).first(16).spec.lengths == (12, 16)


@pytest.fixture(scope="module")
def of_one_length(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "run"
    config = settings_of("csq").model_copy(update={"nested": (), "bits": 16})
    train_locally(config, store, out)
    return out


def test_a_model_of_one_length_is_not_cut(of_one_length: Path) -> None:
    with pytest.raises(SchnRayError, match=r"trained for codes of 16 bits, not of 8: .*nested"):
        load(of_one_length).first(8)
    assert "lengths" not in (of_one_length / "model" / "hasher.yaml").read_text()


@pytest.fixture(scope="module")
def evaluation(run: Path, store: Path) -> Path:
    schn_ray.evaluate(run, store, run.parent / "evaluation")
    return run.parent / "evaluation"


@pytest.mark.parametrize("bits", LENGTHS)
def test_figures_by_length_are_those_of_an_evaluation_of_the_cut_codes(
    bits: int, evaluation: Path, run: Path, store: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    schn_ray.evaluate(run, store, alone, settings={"bits": bits})
    expected, figures = read_figures(alone), read_figures(evaluation)
    (row,) = (each for each in figures.by_length if each.bits == bits)
    for name in ("bits", "map", "map_interval", "precision_at", "unique_share"):
        assert getattr(row, name) == getattr(expected, name)
    _, values = read_queries(evaluation)
    own = values[f"average_precision_of_{bits}_bits"]
    assert np.array_equal(own, read_queries(alone)[1]["average_precision"])
    assert row.less_longest is not None
    gap = row.less_longest.interval.mean
    assert gap == pytest.approx(np.mean(own - values["average_precision"]))
    assert [each.bits for each in expected.by_length] == [k for k in LENGTHS if k <= bits]


def test_a_run_of_one_length_has_no_figures_by_length(
    of_one_length: Path, store: Path, tmp_path: Path
) -> None:
    schn_ray.evaluate(of_one_length, store, tmp_path / "evaluation")
    figures = read_figures(tmp_path / "evaluation")
    assert figures.by_length == ()
    assert "by length" not in figures_text(figures)
    with pytest.raises(SchnRayError, match="trained for codes of 16 bits, not of 12"):
        schn_ray.evaluate(of_one_length, store, tmp_path / "cut", settings={"bits": 12})


def test_learned_codes_are_not_cut(run: Path, store: Path, tmp_path: Path) -> None:
    settings = {"bits": 16, "gallery": "learned"}
    with pytest.raises(SchnRayError, match="learned codes are of all 40 bits"):
        schn_ray.evaluate(run, store, tmp_path / "evaluation", settings=settings)


def test_text_and_report_have_a_table_by_length(evaluation: Path) -> None:
    figures = read_figures(evaluation)
    row = figures.by_length[1]
    assert row.map is not None
    assert f"   16  {row.map:.4f} [" in figures_text(figures)
    label, score, less = length_rows(figures)[1]
    assert label == "16 bits"
    assert score.startswith(f"{row.map:.3f} [")
    assert row.less_longest is not None
    assert less.startswith(f"{row.less_longest.interval.mean:+.3f} [")


@pytest.mark.slow
def test_the_page_has_the_table(evaluation: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluation, default_evaluation(run))
    schn_ray.write_report(run, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "By length" in page
    assert all(score in page for _, score, _ in length_rows(read_figures(evaluation)))


@pytest.mark.slow
def test_an_export_of_a_length_gives_its_codes(run: Path, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    done = schn_ray.export(run, tmp_path / "model.onnx", images=str(store), bits=16)
    assert done.check.bits_that_differ == 0
    assert done.check.bits == 16 * done.check.images
    X = open_store(store).vectors(np.arange(50))
    exported = load(tmp_path / "model.onnx")
    assert np.array_equal(exported.encode(X), load(run).first(16).encode(X))
    assert np.array_equal(exported.first(12).encode(X), load(run).first(12).encode(X))
