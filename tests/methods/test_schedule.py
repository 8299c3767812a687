"""How the learning rate falls over the iterations of a run."""

import pytest
from support.schn_problem import make_schn

from schn_ray.methods.config import ScheduleConfig
from schn_ray.training.config import train_config


def test_it_rises_and_falls_along_half_a_cosine() -> None:
    trainer = make_schn(learning_rate=0.1)
    trainer.schedule = ScheduleConfig(iterations=10, warm_up=0.2, decay_kind="cosine")
    rates = []
    for done in (0.5, 1, 2, 4, 6, 8, 9.9):
        trainer.set_rates(done)
        rates.append(trainer.learning_rate)
    assert rates[:3] == pytest.approx([0.025, 0.05, 0.1])
    assert rates[4] == pytest.approx(0.05)
    assert rates[3] - 0.05 == pytest.approx(0.05 - rates[5])
    assert 0 < rates[6] < 1e-4


def test_runs_of_before_there_was_a_cosine_stay_finished() -> None:
    assert {"warm_up", "decay_kind"}.isdisjoint(train_config().recorded()["schedule"])
    assert "classifier" not in train_config(method="schn").recorded()["method"]
    assert train_config("cifar10", method="schn-plus").recorded()["method"]["classifier"] == 100
    cosine = train_config(settings=("schedule.decay_kind=cosine",)).recorded()
    assert cosine["schedule"]["decay_kind"] == "cosine"
