"""Whole small runs in this process, without Ray."""

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.image_files import write_tree
from support.trained import last_state, photo_store
from support.users import TINY

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.workers import Workers
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.labels import label_matrix
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.trainer import Trainer
from schn_ray.models.load import load as load_hasher
from schn_ray.models.model_files import fingerprint
from schn_ray.retrieval.code_files import packed_codes
from schn_ray.training import loop, recorder, state
from schn_ray.training import run as training
from schn_ray.training import tensorboard as board
from schn_ray.training.checkpoints import BEST, LAST
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import build_run, train_locally

SMALL = (
    *TINY,
    "schedule.iterations=3",
    "schedule.epochs=2",
    "schedule.samples=20",
    "schedule.batch_size=8",
)


def small_config(*settings: str) -> TrainConfig:
    return train_config("digits", None, SMALL + settings)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PrepareConfig(train_share=0.6, validation_share=0.3)
    return photo_store(
        tmp_path_factory.mktemp("training"), {"cat": 16, "dog": 16, "owl": 16}, config
    )


@pytest.fixture(scope="module")
def finished(store: Path) -> Path:
    out = store.parent / "run"
    train_locally(small_config(), store, out, keep_checkpoints=True)
    return out


def test_a_run_leaves_what_it_promises(finished: Path, store: Path) -> None:
    manifest = read_manifest(finished, "run")
    assert manifest.counts["iterations"] == 3
    assert manifest.made_from == {"store": open_store(store).manifest.fingerprint}
    lines = read_metrics(finished)
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert all(0 <= line["validation_map"] <= 1 for line in lines)
    assert load_hasher(finished).bits == 12
    assert "validation mAP" in (finished / "model" / "README.md").read_text()


def test_learned_codes_are_those_of_the_table(finished: Path) -> None:
    learned = pq.read_table(finished / "learned.parquet")
    saved = torch.load(finished / "checkpoints" / LAST, weights_only=True)["codes"]
    coded = saved["coded"].numpy()
    assert 20 <= coded.sum() <= len(coded)
    assert np.array_equal(packed_codes(learned), saved["packed"].numpy()[coded])


def test_the_released_model_is_the_best_by_validation(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(loop, "_validate", lambda run: next(scores))
    weights = []
    original = recorder.Recorder.record

    def record(self: recorder.Recorder, measured: loop.Iteration, best: bool) -> None:
        original(self, measured, best)
        weights.append(
            (best, {n: x.clone() for n, x in self.run.hasher().network.state_dict().items()})
        )
        assert not (self.path / "model").exists()  # it is written once

    monkeypatch.setattr(recorder.Recorder, "record", record)
    train_locally(small_config(), store, tmp_path / "run", keep_checkpoints=True)
    assert [best for best, _ in weights] == [True, True, False]
    released = load_hasher(tmp_path / "run").network.state_dict()
    torch.testing.assert_close(released, weights[1][1], rtol=0, atol=0)
    assert any((released[name] != value).any() for name, value in weights[2][1].items())
    assert "outer iteration: 2 of 3" in (tmp_path / "run" / "model" / "README.md").read_text()
    saved = {
        name: torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
        for name in (LAST, BEST)
    }
    assert [saved[name]["iteration"] for name in (LAST, BEST)] == [3, 2]


@pytest.mark.parametrize(("patience", "iterations"), [(1, 3), (2, 4), (None, 6)])
def test_training_ends_when_validations_bring_nothing(
    patience: int | None,
    iterations: int,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter([0.5, 0.9, 0.7, 0.9, 0.95, 0.6])
    monkeypatch.setattr(loop, "_validate", lambda run: next(scores))
    settings = ("schedule.iterations=6", "schedule.epochs=1", f"schedule.patience={patience}")
    config = small_config(*settings[:2] if patience is None else settings)
    manifest = train_locally(config, store, tmp_path / "run")
    assert manifest.counts["iterations"] == iterations


def test_patience_outlives_an_interruption(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.7, KeyboardInterrupt, 0.8])

    def next_score(run: state.Run) -> float:
        score = next(scores)
        if score is KeyboardInterrupt:
            raise KeyboardInterrupt
        return score

    monkeypatch.setattr(loop, "_validate", next_score)
    config = small_config("schedule.iterations=9", "schedule.patience=2")
    with pytest.raises(KeyboardInterrupt):
        train_locally(config, store, tmp_path / "run")
    assert train_locally(config, store, tmp_path / "run").counts["iterations"] == 3


@pytest.mark.parametrize("stop_after", [1, 2])
@pytest.mark.parametrize("moment", ["before the checkpoint", "after it"])
def test_an_interrupted_run_ends_as_the_undisturbed_one(
    stop_after: int,
    moment: str,
    store: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    save = state.Run.save

    def killed(self: state.Run, path: Path, best: bool) -> None:
        if moment == "after it":
            save(self, path, best)
        if self.iteration == stop_after:
            raise KeyboardInterrupt
        save(self, path, best)

    with monkeypatch.context() as patch:
        patch.setattr(state.Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_locally(small_config(), store, out)
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "run")
    train_locally(small_config(), store, out, keep_checkpoints=True)
    torch.testing.assert_close(last_state(out), last_state(finished), rtol=0, atol=0)
    assert fingerprint(out) == fingerprint(finished)
    for ours, theirs in zip(read_metrics(out), read_metrics(finished), strict=True):
        timed = {"images_per_second": 0, "data_wait": 0}
        assert ours | timed == theirs | timed


@pytest.mark.parametrize("dies", ["before the manifest", "after it"])
def test_checkpoints_go_when_the_run_is_finished(
    dies: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any moment of the end, the run is not trained again."""
    out, config = tmp_path / "run", small_config()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if dies == "before the manifest":
            patch.setattr("schn_ray.core.directories.library_versions", die)
        else:
            patch.setattr(training, "remove_folder", die)
        with suppress(KeyboardInterrupt):
            train_locally(config, store, out)
    assert (out / "checkpoints").exists()
    monkeypatch.setattr(loop, "_validate", die)  # another iteration would need it
    with suppress(AlreadyDone):
        train_locally(config, store, out)
    assert not (out / "checkpoints").exists()
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {*read_manifest(out, "run").files, "manifest.json"}


def test_control_another_seed_ends_elsewhere(store: Path, finished: Path, tmp_path: Path) -> None:
    train_locally(small_config("seed=1"), store, tmp_path / "run")
    assert fingerprint(tmp_path / "run") != fingerprint(finished)


def test_finished_and_changed_requests(store: Path, finished: Path) -> None:
    with pytest.raises(AlreadyDone):
        train_locally(small_config(), store, finished)
    with pytest.raises(SchnRayError, match=r"config\.bits: 12 there, 16 now"):
        train_locally(small_config("bits=16"), store, finished)


@pytest.mark.parametrize(
    "setting",
    [
        "method.initial_codes=zeros",
        "method.initial_codes=hadamard",
        "method.update_codes=false",
        "method.adversarial=0",
        "method.cycle=schn-mmasia",
        "method.label_graph=mean",
        "method.latent_activation=tanh",
        "method.negative_target=soft",
        "backbone.freeze_batch_norm=true",
        "precision=bf16",
    ],
)
def test_every_variant_trains(setting: str, store: Path, tmp_path: Path) -> None:
    settings = (setting, "schedule.iterations=1", "schedule.epochs=1")
    train_locally(small_config(*settings), store, tmp_path / "run")
    (line,) = read_metrics(tmp_path / "run")
    assert ("adversarial" in line["loss"]) == (setting != "method.adversarial=0")


def test_fixed_centres_stay_where_they_are(store: Path, tmp_path: Path) -> None:
    centres = ("method.initial_codes=hadamard", "method.update_codes=false")
    config = small_config(*centres, "schedule.iterations=1")
    before = build_run(config, open_store(store), Workers(), torch.device("cpu")).table
    train_locally(config, store, tmp_path / "run", keep_checkpoints=True)
    assert torch.equal(last_state(tmp_path / "run")["packed"], torch.from_numpy(before.packed))


def test_a_loss_that_is_not_finite_stops_with_the_term(store: Path, tmp_path: Path) -> None:
    config = small_config("method.hash_latent=1e38", "optimiser.learning_rate=1e30")
    message = r"iteration 1: the loss term \w+ is not finite; there is no checkpoint yet"
    with pytest.raises(SchnRayError, match=message):
        train_locally(config, store, tmp_path / "run")


def test_a_loss_that_breaks_later_leaves_a_good_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_rates = Trainer.set_rates

    def breaks(self: Trainer, done: float) -> None:
        set_rates(self, done)
        if done > 2:
            config = self.method.config
            self.method.config = config.model_copy(update={"hash_image": math.inf})

    monkeypatch.setattr(Trainer, "set_rates", breaks)
    with pytest.raises(SchnRayError, match="last checkpoint, of iteration 2, is good"):
        train_locally(small_config(), store, tmp_path / "run", keep_checkpoints=True)
    assert [line["iteration"] for line in read_metrics(tmp_path / "run")] == [1, 2]
    assert all(x.isfinite().all() for x in last_state(tmp_path / "run").values())


def test_tensorboard_shows_what_the_metrics_say(store: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_locally(small_config(), store, tmp_path / "run", tensorboard=True)
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = read_metrics(tmp_path / "run")
    for name, values in (
        ("validation_map", [line["validation_map"] for line in lines]),
        ("loss/cycle_image", [line["loss"]["cycle_image"] for line in lines]),
    ):
        events = shown.Scalars(name)
        assert [event.step for event in events] == [1, 2, 3]
        assert [event.value for event in events] == pytest.approx(values)


def test_a_library_that_is_missing_is_said_before_training(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[tensorboard\]'"):
        train_locally(small_config(), store, tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_without_validation_rows_the_last_model_is_released(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "images", {"cat": 12, "dog": 12})
    config = PrepareConfig(validation_share=0)
    prepare_store(open_source(str(tree), SourceConfig()), config, tmp_path / "store")
    train_locally(small_config(), tmp_path / "store", tmp_path / "run")
    assert [line["validation_map"] for line in read_metrics(tmp_path / "run")] == [None] * 3
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "outer iteration: 3 of 3" in card
    assert "not measured" in card


def test_more_workers_than_rows_in_a_batch_are_refused(store: Path) -> None:
    with pytest.raises(SchnRayError, match="batches of 8 cannot be shared by 9 workers"):
        training.require_shareable(small_config(), open_store(store), 9)


def test_lines_of_metrics_are_whole_or_not_read(store: Path, tmp_path: Path) -> None:
    train_locally(small_config(), store, tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    written, measured = file.read_text(), read_metrics(tmp_path / "run")
    file.write_text(written + '{"iterat')  # as a kill leaves it
    assert read_metrics(tmp_path / "run") == measured
    for key in ("iteration", "validation_map", "sha256"):
        at = written.index(f'"{key}": ') + len(key) + 6
        changed = "2" if written[at] != "2" else "3"
        file.write_text(written[:at] + changed + written[at + 1 :])
        with pytest.raises(SchnRayError, match="line 1, is damaged"):
            read_metrics(tmp_path / "run")


def test_class_code_distance_is_the_smallest_between_majorities() -> None:
    table = CodeTable(6, 4)
    ones = torch.ones(4)
    flipped = torch.tensor([-1.0, 1, 1, 1])
    codes = [ones, ones, flipped, -ones, -ones, -ones]  # the third is outvoted
    table.write(np.arange(6), torch.stack(codes))
    labels = label_matrix([[0], [0], [0], [1], [1], [1]], classes=3)
    codes = table.read(np.arange(6))
    assert loop.class_code_distance(codes, labels[:6]) == 4
    assert loop.class_code_distance(codes[:3], labels[:3]) is None
