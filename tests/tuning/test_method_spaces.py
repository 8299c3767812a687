"""A search that chooses the method: each has its own settings, recipe and part of a preset."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.sparse import csr_array
from support.kills import Killed

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.methods.base import ShallowMethod
from schn_ray.methods.registry import METHODS, contenders, find_method
from schn_ray.training.config import train_config
from schn_ray.tuning.method_spaces import opened_space
from schn_ray.tuning.results import best_rows, planned_iterations, write_results
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config, check_space
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.trial_settings import TrialSettings

VECTORS = {"backbone": {"name": "features:9", "weights": None}}
THREE = ("schn-plus", "csq", "itq")
SEARCHED = ("schn-plus", "csq", "itq-cca")  # each has settings to search


def opened(
    methods: tuple[str, ...] = THREE, settings: tuple[str, ...] = ()
) -> tuple[Space, TrialSettings]:
    space = opened_space("methods", "frozen", None, settings, None, VECTORS, methods)
    base = base_config(space, "frozen", None, settings, None, VECTORS)
    check_space(space, base)
    return space, base


def test_every_method_can_be_in_one_space() -> None:
    space, base = opened(tuple(METHODS))
    assert set(space.methods) == set(METHODS)
    assert {base.config(values).method.name for values in space.start} == set(METHODS)


def test_a_trial_has_the_settings_of_its_method_and_no_others(tmp_path: Path) -> None:
    space, base = opened()
    search = Search(tmp_path, space, base)
    for _ in range(25):
        proposal = search.propose()
        assert proposal is not None
        name = proposal.values["method.name"]
        others = [k for k in proposal.values if "@" in k and not k.endswith(f"@{name}")]
        assert not others
        config = base.config(proposal.values)
        alone = train_config("frozen", method=name, base=VECTORS)
        assert type(config) is type(alone)
        if proposal.number < len(THREE):  # first, each as it is
            assert (name, config) == (THREE[proposal.number], alone)
        for key, value in proposal.values.items():
            changed: Any = config.model_dump()
            for part in key.partition("@")[0].split("."):
                changed = changed[part]
            assert changed == value
        search.finish(proposal.number, Outcome("complete", {"validation_map": 0.5}))
    assert {row.values["method.name"] for row in search.rows()} == set(THREE)


def trials(search: Search, count: int) -> list[str]:
    """Run trials, of which those of csq are by far the best; return the method of each."""
    waiting = search.unfinished()
    while search.count_ended() < count:
        proposal = waiting.pop(0) if waiting else search.propose()
        if proposal is None:
            break
        score = 0.9 if proposal.values["method.name"] == "csq" else 0.1
        search.finish(proposal.number, Outcome("complete", {"validation_map": score}))
    return [row.values["method.name"] for row in search.rows() if row.is_counted]


def test_each_method_has_its_share_in_turn_before_one_is_preferred(tmp_path: Path) -> None:
    space, base = opened(SEARCHED)
    names = trials(Search(tmp_path, space, base), 28)
    for at in range(0, 18, 3):
        assert set(names[at : at + 3]) == set(SEARCHED)
    assert names[18:].count("csq") > 5  # now it may choose


def test_control_without_a_share_some_methods_have_few_trials(tmp_path: Path) -> None:
    space, base = opened(SEARCHED)
    names = trials(Search(tmp_path, space.model_copy(update={"each_method": 1}), base), 12)
    assert min(names.count(name) for name in SEARCHED) < 4


def test_killed_while_a_method_has_its_share_it_goes_on_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, base = opened(SEARCHED)
    trials(Search(tmp_path, space, base), 12)  # the first ten of TPE are random
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / STUDY, tmp_path / "killed")
    really = optuna.Study.enqueue_trial

    def dies(*given: Any) -> None:
        really(*given)
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(optuna.Study, "enqueue_trial", dies)
        Search(tmp_path / "killed", space, base).propose()
    again, whole = Search(tmp_path / "killed", space, base), Search(tmp_path, space, base)
    for _ in range(2):
        assert again.propose() == whole.propose()


def test_a_method_of_few_settings_has_those_and_the_others_go_on(tmp_path: Path) -> None:
    values = {
        "preset": "digits",
        "parameters": {
            "method.name": {"choices": ["csq", "itq-cca", "cosdish"]},
            "method.ridge@itq-cca": {"choices": [1e-5, 1e-4, 1e-3]},
            "method.quantization@csq": {"log": [0.01, 1]},
        },
        "start": [{"method.name": "cosdish"}],
    }
    space = validated(Space, values)
    base = base_config(space, None, None, ())
    names = trials(Search(tmp_path, space, base), 10)
    assert names[0] == "cosdish"
    counts = [names.count(name) for name in ("csq", "itq-cca", "cosdish")]
    assert counts == [6, 3, 1]


def test_methods_that_an_earlier_search_tried_have_had_their_share(tmp_path: Path) -> None:
    space, base = opened(SEARCHED)
    space = space.model_copy(update={"each_method": 3})
    (tmp_path / "first").mkdir()
    first = Search(tmp_path / "first", space, base)
    trials(first, 9)
    known = [row for row in first.rows() if row.values["method.name"] != "itq-cca"]
    names = trials(Search(tmp_path, space, base, known=known), 3 + 2)
    assert names[3:] == ["itq-cca"] * 2  # after the starting points, of which one is the best known


def test_the_winner_s_file_is_what_train_takes(tmp_path: Path) -> None:
    space, base = opened()
    search = Search(tmp_path, space, base)
    for score in (0.4, 0.6, 0.5):
        proposal = search.propose()
        assert proposal is not None
        search.finish(proposal.number, Outcome("complete", {"validation_map": score}))
    (best,) = best_rows(search, None)
    write_results(tmp_path, search, None)
    config = train_config(None, tmp_path / "best.yaml")
    assert config == base.config(best.values) == train_config("frozen", method="csq", base=VECTORS)


def test_a_fit_is_never_stopped_and_stops_none(tmp_path: Path) -> None:
    space, base = opened()
    pruned = space.model_copy(update={"pruning": validated(Space, PRUNED).pruning})
    search = Search(tmp_path, pruned, base)
    first, second, fit = (search.propose() for _ in range(3))
    assert first
    assert second
    assert fit
    assert issubclass(find_method(fit.values["method.name"]), ShallowMethod)
    assert base.iterations(fit.values) is None
    assert not search.report_score(fit.number, 1, 0.99)  # better than what follows
    assert not search.report_score(first.number, 1, 0.5)
    assert not search.report_score(second.number, 1, 0.6)  # though .99 was reported
    assert not search.report_score(fit.number, 2, 0.01)
    search.finish(fit.number, Outcome("complete", {"validation_map": 0.01}, iterations=7))
    row = search.rows()[fit.number]
    assert (row.state, row.curve, planned_iterations(search, row)) == ("complete", {}, 7)


PRUNED: dict[str, Any] = {
    "preset": "digits",
    "parameters": {
        "method.name": {"choices": ["csq", "itq-cca"]},
        "bits": {"choices": [16, 32]},
        "method.quantization@csq": {"log": [0.01, 1]},
        "method.ridge@itq-cca": {"log": [1e-5, 1e-1]},
    },
    "pruning": {"grace": 1, "factor": 2},
}


def test_a_file_of_one_s_own_chooses_the_method() -> None:
    space = validated(Space, PRUNED)
    base = base_config(space, None, None, ())
    check_space(space, base)
    values = {"method.name": "itq-cca", "bits": 16, "method.ridge@itq-cca": 0.01}
    config = base.config(values)
    assert (config.method.name, config.bits) == ("itq-cca", 16)
    assert config.method.model_dump()["ridge"] == 0.01
    assert space.parameters["method.ridge@itq-cca"].when == {"method.name": "itq-cca"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method.name": {"choices": ["csq", "itk"]}}, "no method 'itk'; did you mean 'itq'"),
        (
            {"method.margin@csq": {"linear": [0, 1]}},
            "unknown setting 'method.margin' of method csq",
        ),
        ({"method.quantization@dch": {"linear": [0, 1]}}, "wants method.name = 'dch'"),
        ({"method.quantization": {"linear": [0, 1]}}, "'method.quantization' of method itq-cca"),
        ({"method.quantization@csq": {"linear": [-1, 1]}}, "greater than or equal to 0"),
    ],
)
def test_a_choice_of_methods_that_makes_no_sense(parameters: dict[str, Any], message: str) -> None:
    space = validated(Space, {"parameters": PRUNED["parameters"] | parameters})
    with pytest.raises(SchnRayError) as refused:
        check_space(space, base_config(space, None, None, ()))
    assert message in str(refused.value)


def test_settings_are_for_all_methods_or_for_one(tmp_path: Path) -> None:
    space, base = opened(settings=("bits=24", "method.quantization@csq=0.3", "head.kind=mlp"))
    assert {config.bits for config in base.by_method.values()} == {24}
    assert base.config({"method.name": "csq"}).method.model_dump()["quantization"] == 0.3
    assert not {"method.quantization@csq", "head.kind@csq"} & set(space.parameters)
    assert "method.quantization@schn-plus" in space.parameters
    assert "method.hash_latent@schn-plus" not in space.parameters  # the preset has it off
    with pytest.raises(SchnRayError, match="the search has no method 'dch'"):
        opened(settings=("method.alpha@dch=1",))
    with pytest.raises(SchnRayError, match="the space chooses the method, of schn-plus, csq, itq"):
        base_config(space, None, None, (), "csq")
    (tmp_path / "one.yaml").write_text("method: {name: csq}\n")
    with pytest.raises(SchnRayError, match="the section method is one method's"):
        base_config(space, None, tmp_path / "one.yaml", ())


def test_one_method_is_no_choice() -> None:
    with pytest.raises(SchnRayError, match="needs two or more, got csq"):
        opened(("csq",))
    with pytest.raises(SchnRayError, match="--methods is for --space methods"):
        opened_space("quick", None, None, (), methods=("csq", "itq"))


def test_contenders_suit_the_labels() -> None:
    labelled = contenders(csr_array(np.eye(4, dtype=np.uint8)))
    assert len(labelled) == 6
    assert all(find_method(n).labels == "none" for n in contenders(csr_array((4, 2))))
    several = contenders(csr_array(np.ones((4, 2), np.uint8)))
    assert all(find_method(name).labels == "multi" for name in several)
