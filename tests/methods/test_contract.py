"""What every method of the registry must do; a new line in the registry is tested by itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from support.gloo import run_on_workers
from support.kills import killed_after

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation.metrics.average_precision import average_precision, mean_or_none
from schn_ray.evaluation.metrics.histograms import distance_histograms, without_themselves
from schn_ray.methods.base import DeepMethod
from schn_ray.methods.catalogue import describe_method
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.models.load import load
from schn_ray.retrieval.code_files import packed_codes
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.recorder import Recorder
from schn_ray.training.run import build_run, finish_run, train_locally

BITS, WIDTH = 16, 64
# of any method: an iteration is an epoch over all rows; the published ones would take too long
SETTINGS = (
    f"bits={BITS}",
    "schedule.iterations=3",
    "schedule.epochs=4",
    "schedule.batch_size=32",
    "optimiser.learning_rate=1e-2",
    "optimiser.backbone_rate=1",
)
# where a method's own default takes long, or the rate is too high for it
SHORTER = {
    "itq": ("method.rounds=5",),
    "itq-cca": ("method.rounds=5",),
    "lfh": ("method.rounds=9",),
    "dsh-gan": ("method.warm_up=0", "schedule.epochs=8"),
    "cibhash": ("optimiser.kind=sgd",),  # Adam makes steps of the rounding of saturated sigmoids
}
SMALL_SCHN = (
    "method.latent_dropout=0.2",
    "method.semantic_dim=32",
    "method.latent_dim=32",
    "schedule.iterations=2",
    "schedule.epochs=2",
)
SHORTER |= dict.fromkeys(("schn", "schn-mmasia"), SMALL_SCHN)
SHORTER["schn-plus"] = (*SMALL_SCHN, "method.pair=10", "method.classifier=1")
# few steps, as rounding that differs grows from step to step
FEW_STEPS = ("schedule.iterations=2", "schedule.epochs=1", "optimiser.learning_rate=1e-3")
CPU = torch.device("cpu")

# one of each kind; the others are tested by make test-slow
QUICK = ("schn-plus", "csq", "dpsh", "lsh", "itq", "sdh")
OTHERS = tuple(name for name in METHODS if name not in QUICK)
EACH = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]

# methods whose members have nothing, codes, or one network, see test_nested.py
NESTED = ("csq", "dsdh", "schn-plus")

method_of_registry = pytest.mark.parametrize("name", EACH)


def settings_of(name: str, *more: str) -> TrainConfig:
    """Return settings under which a method takes a second."""
    base = {"backbone": {"name": f"features:{WIDTH}", "weights": None}}
    return train_config(None, None, (*SETTINGS, *SHORTER.get(name, ()), *more), name, base)


def write_store(folder: Path, labels: list[str]) -> Path:
    """Make a store of digits as vectors of 64 pixels."""
    folder.mkdir()
    rows = load_digits().data[: len(labels)].astype(np.float32)
    np.save(folder / "digits.npy", rows)
    if any(labels):
        (folder / "digits.labels.txt").write_text("".join(f"{label}\n" for label in labels))
    config = PrepareConfig(train_share=0.7, validation_share=0.1, query_share=0.2)
    source = open_source(str(folder / "digits.npy"), config.source)
    prepare_store(source, config, folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, one label each."""
    labels = [str(digit) for digit in load_digits().target[:500]]
    return write_store(tmp_path_factory.mktemp("one") / "digits", labels)


@pytest.fixture(scope="module")
def multi_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with a second label for odd ones, and some rows without any."""
    digits = load_digits().target[:300]
    labels = ["" if not d else f"{d};odd" if d % 2 else str(d) for d in digits]
    return write_store(tmp_path_factory.mktemp("many") / "digits", labels)


@pytest.fixture(scope="module")
def unlabelled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits without labels."""
    return write_store(tmp_path_factory.mktemp("none") / "digits", [""] * 300)


@pytest.fixture(scope="module", params=EACH)
def trained(
    request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A run of each method in turn."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train_locally(settings_of(request.param), store, out)
    return request.param, out


def codes_of(run: Path, store: Path, role: str) -> np.ndarray[Any, Any]:
    """Encode the rows of a role with a run's model."""
    opened = open_store(store)
    return load(run).encode(opened.vectors(opened.rows(role)))


@method_of_registry
def test_a_method_is_described(name: str) -> None:
    described = describe_method(name)
    assert described.name == name
    assert 20 < len(described.summary) <= 110
    assert described.details
    for setting in described.settings:
        assert setting.meaning, f"{setting.key} has no line under 'Attributes' of its config"


def test_terms_are_finite_and_the_codes_beat_random_ones(
    trained: tuple[str, Path], store: Path
) -> None:
    name, run = trained
    for line in read_metrics(run):
        assert all(np.isfinite(value) for value in line["loss"].values())
        assert line["unique_share"] > 0
    opened = open_store(store)
    gallery, queries = codes_of(run, store, "gallery"), codes_of(run, store, "query")
    Y = opened.labels
    found = mean_ap(queries, Y[opened.rows("query")], gallery, Y[opened.rows("gallery")])
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, codes.shape, np.uint8) for codes in (queries, gallery)]
    chance = mean_ap(noise[0], Y[opened.rows("query")], noise[1], Y[opened.rows("gallery")])
    least = chance + (0.3 if find_method(name).labels != "none" else 0.05)
    assert found > least, f"{name}: mAP {found:.3f}, random codes {chance:.3f}"


def mean_ap(
    queries: np.ndarray[Any, Any], Y_q: csr_array, gallery: np.ndarray[Any, Any], Y_g: csr_array
) -> float:
    """Return the mAP of codes."""
    mean = mean_or_none(average_precision(distance_histograms(queries, Y_q, gallery, Y_g, BITS)))
    assert mean is not None
    return mean


def test_the_model_is_saved_whole(trained: tuple[str, Path], store: Path) -> None:
    """What is loaded gives the very bits with which training validated."""
    _, run = trained
    opened = open_store(store)
    hasher = load(run)
    X = opened.vectors(opened.rows("validation"))
    again = load(run / "model")
    assert (hasher.bits, hasher.spec.classes) == (BITS, opened.classes)
    assert np.array_equal(hasher.encode(X), again.encode(X))
    measured = [line["validation_map"] for line in read_metrics(run)]
    best = max(score for score in measured if score is not None)
    codes, Y = hasher.encode(X), opened.labels[opened.rows("validation")]
    histograms = distance_histograms(codes, Y, codes, Y, BITS)
    assert mean_or_none(average_precision(without_themselves(histograms, Y))) == best


def test_a_killed_run_ends_as_an_undisturbed_one(
    trained: tuple[str, Path], store: Path, tmp_path: Path
) -> None:
    name, run = trained
    with killed_after(1):
        train_locally(settings_of(name), store, tmp_path / "run")
    train_locally(settings_of(name), store, tmp_path / "run")
    assert metrics_of(tmp_path / "run") == metrics_of(run)
    for role in ("query", "gallery"):
        assert np.array_equal(codes_of(tmp_path / "run", store, role), codes_of(run, store, role))
    assert learned_codes(tmp_path / "run") == learned_codes(run)


def test_learned_codes_are_those_that_the_method_solves(
    trained: tuple[str, Path], store: Path
) -> None:
    name, run = trained
    opened = open_store(store)
    rows, learned = opened.rows("train"), learned_codes(run)
    if not find_method(name).solves_codes():
        assert learned == {}
        return
    assert list(learned) == opened.ids.take(pa.array(rows)).to_pylist()
    codes, Y = np.stack([np.frombuffer(code, np.uint8) for code in learned.values()]), opened.labels
    assert mean_ap(codes, Y[rows], codes, Y[rows]) > 0.9


def learned_codes(run: Path) -> dict[str, bytes]:
    """Return the learned code of each training row that has one, by id."""
    table = pq.read_table(run / "learned.parquet")
    return dict(zip(table["id"].to_pylist(), map(bytes, packed_codes(table)), strict=True))


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return a run's measurements without what the clock decides."""
    timed = {"images_per_second", "data_wait", "workers"}
    return [{k: v for k, v in line.items() if k not in timed} for line in read_metrics(run)]


def train_on_workers(workers: Workers) -> dict[str, Any]:
    """Train methods on the workers of this group; return relaxed codes of the queries."""
    folder = Path.cwd()
    store = open_store(folder / "store")
    X = store.vectors(store.rows("query"))
    codes = {}
    for name in json.loads((folder / "names.json").read_text()):
        nested, _, method = name.rpartition(" ")
        lengths = ("nested=[8, 12, 16]",) if nested else ()
        run = build_run(settings_of(method, *FEW_STEPS, *lengths), store, workers, CPU)
        finish_run(run, store, folder / f"{name}-{workers.size}")
        codes[name] = run.hasher().relaxed(X)
    return codes


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [(*QUICK, *(f"nested {name}" for name in NESTED)), OTHERS],
    ids=["quick", "others"],
)
def test_two_workers_train_what_one_does(
    names: tuple[str, ...], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").symlink_to(store)
    Path("names.json").write_text(json.dumps(names))
    alone = train_on_workers(Workers())
    for worker in run_on_workers(train_on_workers, tmp_path / "workers"):
        for name in names:
            differ = int(((worker[name] >= 0) != (alone[name] >= 0)).sum())
            assert differ <= 1e-3 * alone[name].numel(), f"{name}: {differ} bits differ"
            # sums in another order round differently, and training amplifies it
            torch.testing.assert_close(worker[name], alone[name], rtol=1e-2, atol=1e-2, msg=name)


@method_of_registry
def test_a_deep_method_moves_its_encoder(name: str, store: Path) -> None:
    if not issubclass(find_method(name), DeepMethod):
        return
    run = build_run(settings_of(name, "schedule.iterations=1"), open_store(store), Workers(), CPU)
    before = {key: value.clone() for key, value in run.method.encoder.state_dict().items()}
    run.iteration = 1
    run.learner.iterate(run)
    after = run.method.encoder.state_dict()
    assert all(not torch.equal(before[key], after[key]) for key in before)


@method_of_registry
def test_rows_with_many_labels_are_learned_or_refused(
    name: str, multi_store: Path, tmp_path: Path
) -> None:
    config = settings_of(name, "schedule.iterations=1")
    if find_method(name).labels == "single":
        with pytest.raises(SchnRayError, match="uses one label a row"):
            train_locally(config, multi_store, tmp_path / "run")
        return
    train_locally(config, multi_store, tmp_path / "run")
    assert read_metrics(tmp_path / "run")[-1]["validation_map"] > 0.2


@method_of_registry
def test_rows_without_labels_are_learned_or_refused(
    name: str, unlabelled_store: Path, tmp_path: Path
) -> None:
    config = settings_of(name, "schedule.iterations=1")
    if find_method(name).labels != "none":
        with pytest.raises(SchnRayError, match=r"learns from labels.*--method itq"):
            train_locally(config, unlabelled_store, tmp_path / "run")
        return
    train_locally(config, unlabelled_store, tmp_path / "run")
    codes = codes_of(tmp_path / "run", unlabelled_store, "gallery")
    assert len(np.unique(codes, axis=0)) > len(codes) / 10


def test_a_fit_releases_the_model_of_its_last_round_only(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released model may be large: it has the backbone, too."""
    saved: list[int] = []
    record = Recorder.record

    def counted(self: Recorder, measured: Any, best: bool) -> None:
        saved.extend([self.run.iteration] if best else [])
        record(self, measured, best)

    monkeypatch.setattr(Recorder, "record", counted)
    train_locally(settings_of("itq"), store, tmp_path / "run")
    assert saved == [len(read_metrics(tmp_path / "run"))]
    assert saved[0] > 1
