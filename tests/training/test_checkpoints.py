"""No damaged state is trained on: the one before it is, and that is said."""

import json
import pickle
from pathlib import Path
from random import Random

import pytest
import torch
from support.kills import Killed, killed_after
from support.trained import last_state, photo_store
from support.users import TINY

from schn_ray.core.errors import SchnRayError
from schn_ray.training.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    load_best,
    load_checkpoint,
    save_checkpoint,
)
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally

CPU = torch.device("cpu")
SETTINGS = (*TINY, "schedule.iterations=4", "schedule.epochs=1", "schedule.batch_size=8")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photos of three classes."""
    return photo_store(tmp_path_factory.mktemp("checkpoints"), {"cat": 14, "dog": 14, "owl": 14})


@pytest.fixture
def interrupted(store: Path, tmp_path: Path) -> Path:
    """A run that was killed after three of its four iterations."""
    with killed_after(3):
        train(store, tmp_path / "run")
    return tmp_path / "run"


def train(store: Path, out: Path) -> None:
    """Train, or go on."""
    train_locally(train_config("digits", None, SETTINGS), store, out, keep_checkpoints=True)


def damage(file: Path, how: str) -> None:
    """Change a file as disks and people do."""
    data = bytearray(file.read_bytes())
    if how == "a bit":
        data[Random(1).randrange(len(data))] ^= 8
    elif how == "a page of zeros":
        data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
    elif how == "cut":
        del data[len(data) // 2 :]
    else:
        data = bytearray(pickle.dumps({"iteration": 3}))
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["a bit", "a page of zeros", "cut", "another pickle"])
def test_a_damaged_state_is_left_for_the_one_before(
    how: str, interrupted: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(store, tmp_path / "undisturbed")
    damage(interrupted / "checkpoints" / LAST, how)
    train(store, interrupted)
    assert f"{LAST} is damaged; going on from {PREVIOUS}" in capsys.readouterr().err
    assert [line["iteration"] for line in read_metrics(interrupted)] == [1, 2, 3, 4]
    expected, actual = last_state(tmp_path / "undisturbed"), last_state(interrupted)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_without_a_sound_state_nothing_is_trained(interrupted: Path, store: Path) -> None:
    for name in (LAST, PREVIOUS):
        damage(interrupted / "checkpoints" / name, "a bit")
    with pytest.raises(
        SchnRayError, match=r"last\.pt and previous\.pt differ from what was written"
    ):
        train(store, interrupted)


def test_damaged_measurements_are_written_anew(interrupted: Path, store: Path) -> None:
    metrics = interrupted / "metrics.jsonl"
    before = read_metrics(interrupted)
    metrics.write_bytes(b"\xff junk\n" + metrics.read_bytes())
    with pytest.raises(SchnRayError, match=r"metrics\.jsonl, line 1, is damaged: remove this file"):
        read_metrics(interrupted)
    metrics.write_text("")
    train(store, interrupted)
    after = read_metrics(interrupted)
    assert [line["iteration"] for line in after] == [1, 2, 3, 4]
    assert after[:3] == before


@pytest.mark.parametrize("how", ["a bit", "cut", "another pickle"])
def test_a_damaged_model_is_not_released(how: str, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with killed_after(4):  # all that is left to do is to write the model
        train(store, run)
    assert not (run / "model").exists()
    best = run / "checkpoints" / BEST
    state = best.read_bytes()
    best.unlink()  # it is last.pt, by another name
    best.write_bytes(state)
    damage(best, how)
    with pytest.raises(SchnRayError, match=r"best\.pt, the best model, differs from what was"):
        train(store, run)
    assert not (run / "model").exists()


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("killed_before", ["the digests", "the previous state", "the last state"])
def test_whenever_a_save_is_killed_its_files_are_known(
    killed_before: str, times: int, best: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (1, 2):
        save_checkpoint({"iteration": iteration}, tmp_path, best=True)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if killed_before == "the digests":
            patch.setattr("schn_ray.training.checkpoints.write_json", killed)
        elif killed_before == "the previous state":
            patch.setattr("schn_ray.training.checkpoints._link", killed)
        else:
            patch.setattr(Path, "rename", killed)
        for _ in range(times):
            with pytest.raises(Killed):
                save_checkpoint({"iteration": 3}, tmp_path, best=best)
    loaded = load_checkpoint(tmp_path, CPU)
    assert loaded is not None
    assert loaded["iteration"] == load_best(tmp_path)["iteration"] == 2
    save_checkpoint({"iteration": 3}, tmp_path, best=best)
    assert load_best(tmp_path)["iteration"] == (3 if best else 2)
    for name, iteration in ((LAST, 3), (PREVIOUS, 2)):
        loaded = load_checkpoint(tmp_path, CPU)
        assert loaded is not None
        assert loaded["iteration"] == iteration
        (tmp_path / name).unlink()
    assert load_checkpoint(tmp_path, CPU) is None


def test_the_best_state_stays_known_however_many_follow(tmp_path: Path) -> None:
    for iteration in range(1, 9):
        save_checkpoint({"iteration": iteration}, tmp_path, best=iteration in (1, 2))
    assert load_best(tmp_path)["iteration"] == 2


def test_digests_that_are_damaged_make_every_state_unknown(tmp_path: Path) -> None:
    save_checkpoint({"iteration": 1}, tmp_path, best=True)
    for text in ("", "[]", json.dumps({"states": 3}), json.dumps({"states": [], "bests": {}})):
        (tmp_path / "sha256.json").write_text(text)
        with pytest.raises(SchnRayError, match=r"no sound state is left, last\.pt differ"):
            load_checkpoint(tmp_path, CPU)
