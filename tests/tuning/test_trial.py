"""One trial without Ray: stopped by a file, killed and continued, failed with its reason."""

import errno
import functools
from pathlib import Path

import pytest
from support.image_files import write_tree
from support.users import TINY

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import is_finished, read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.fitted import FittedHead
from schn_ray.models.model_files import fingerprint
from schn_ray.training import state
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.rows import settings_of_inputs
from schn_ray.tuning.objectives import encoding_cost
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.trial import TrialDir, open_inputs, run_trial, train_trial, trial_dir

Scores = list[tuple[int, float]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trial")
    tree = write_tree(folder / "images", {"cat": 16, "dog": 16, "owl": 16})
    with_validation = PrepareConfig(validation_share=0.3)
    prepare_store(open_source(str(tree), SourceConfig()), with_validation, folder / "store")
    return str(folder / "store")


def config(*settings: str) -> TrainConfig:
    small = ("schedule.batch_size=8", "schedule.iterations=3", "schedule.epochs=1")
    return train_config("digits", None, (*TINY, *small, *settings))


def trial(store: str, directory: TrialDir, reported: Scores, *settings: str) -> Outcome:
    def report(iteration: int, score: float) -> None:
        reported.append((iteration, score))

    objectives = ("validation_map", "encoding_cost")
    return run_trial(config(*settings), store, directory, report, train_trial, objectives)


@pytest.fixture(scope="module")
def undisturbed(
    store: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrialDir, Outcome, Scores]:
    directory, reported = trial_dir(str(tmp_path_factory.mktemp("undisturbed")), 0), Scores()
    return directory, trial(store, directory, reported), reported


def test_a_trial_tells_its_best_so_far(undisturbed: tuple[TrialDir, Outcome, Scores]) -> None:
    directory, outcome, reported = undisturbed
    lines = read_metrics(directory.run)
    maps = [line["validation_map"] for line in lines]
    assert reported == [(t, max(maps[:t])) for t in (1, 2, 3)]
    assert (outcome.state, outcome.iterations) == ("complete", 3)
    assert outcome.figures["validation_map"] == max(maps)
    assert outcome.figures["bits"] == 12
    assert read_manifest(Path(directory.run), "run").counts["best_validation_map"] == max(maps)
    assert not Path(directory.run, "checkpoints").exists()


def test_a_finished_trial_is_told_again_and_not_trained(
    store: str, undisturbed: tuple[TrialDir, Outcome, Scores]
) -> None:
    directory, outcome, reported = undisturbed
    again = Scores()
    written = Path(directory.run, "manifest.json").stat().st_mtime_ns
    assert trial(store, directory, again).figures == outcome.figures
    assert again == reported
    assert Path(directory.run, "manifest.json").stat().st_mtime_ns == written


def test_killed_after_any_iteration_it_goes_on_to_the_same_end(
    store: str, undisturbed: tuple[TrialDir, Outcome, Scores], tmp_path: Path
) -> None:
    directory = trial_dir(str(tmp_path), 7)

    def killed(iteration: int, score: float) -> None:
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(config(), store, directory, killed, train_trial, ())
    assert not is_finished(Path(directory.run))
    checkpoint = Path(directory.run, "checkpoints", "last.pt").stat().st_mtime_ns
    reported = Scores()
    outcome = trial(store, directory, reported)
    assert reported == undisturbed[2]
    assert outcome.figures == undisturbed[1].figures
    assert fingerprint(directory.run) == fingerprint(undisturbed[0].run)
    assert checkpoint


def test_a_note_stops_it_after_the_iteration(store: str, tmp_path: Path) -> None:
    directory, reported = trial_dir(str(tmp_path), 3), Scores()

    def report(iteration: int, score: float) -> None:
        reported.append((iteration, score))
        if iteration == 2:
            Path(directory.stop).touch()

    outcome = run_trial(config(), store, directory, report, train_trial, ())
    assert (outcome.state, outcome.figures, outcome.iterations) == ("pruned", {}, 2)
    assert [iteration for iteration, _ in reported] == [1, 2]
    assert sorted(p.name for p in Path(directory.run).iterdir()) == [
        "metrics.jsonl",
        "request.json",
    ]


def test_settings_that_cannot_be_trained_are_an_outcome(store: str, tmp_path: Path) -> None:
    broken = ("method.hash_latent=1e38", "optimiser.learning_rate=1e30")
    outcome = trial(store, trial_dir(str(tmp_path), 0), Scores(), *broken)
    assert outcome.state == "failed"
    assert "is not finite" in outcome.reason
    outcome = trial(store, trial_dir(str(tmp_path), 1), Scores(), "backbone.name=no_such_net")
    assert (outcome.state, "no_such_net" in outcome.reason) == ("failed", True)


def test_a_trial_is_the_same_whatever_its_process_trained_before(
    store: str, tmp_path: Path
) -> None:
    small = {"backbone.base_channels": 4, "backbone.image_size": 8, "backbone.weights": "none"}
    features = str(schn_ray.embed(store, tmp_path / "f", backbone="small", settings=small))
    shared = functools.cache(open_inputs)
    given = settings_of_inputs(store, features) | {"schedule": {"iterations": 1, "epochs": 1}}
    configs = [train_config("frozen", method=name, base=given) for name in ("csq", "dpsh", "csq")]
    for number, (trained, opened) in enumerate(
        [
            (configs[0], shared),
            (configs[1], shared),
            (configs[2], shared),
            (configs[2], open_inputs),
        ]
    ):
        train = functools.partial(train_trial, features=features, opened=opened)
        directory = trial_dir(str(tmp_path), number)
        outcome = run_trial(trained, store, directory, lambda *_: None, train, ())
        assert outcome.state == "complete", outcome.reason
    prints = [fingerprint(trial_dir(str(tmp_path), number).run) for number in range(4)]
    assert prints[0] == prints[2] == prints[3] != prints[1]
    assert shared.cache_info().misses == 1


def test_a_full_disk_is_not_the_settings_fault(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    directory = trial_dir(str(tmp_path), 0)
    with monkeypatch.context() as patch:
        patch.setattr(state.Run, "save", full)
        with pytest.raises(SchnRayError, match="No space left on device"):
            trial(store, directory, Scores())
    assert trial(store, directory, Scores()).state == "complete"


def test_the_cost_of_a_network_is_that_of_its_layers() -> None:
    import torch
    from torch import nn

    # by hand: 8x8 places x 5 outputs x 3x3x3 products and sums; then 5*64 x 7 of them
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(320, 7))
    assert encoding_cost(network, (3, 8, 8)) == (2 * 64 * 5 * 27 + 2 * 320 * 7) / 1e6
    assert torch.is_grad_enabled()


def test_the_cost_of_a_head_that_is_fitted_counts_its_projection() -> None:
    head = FittedHead(HeadSpec(kind="fitted"), 20, 8)
    assert encoding_cost(head, (20,)) == 2 * 20 * 8 / 1e6
