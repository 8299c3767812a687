"""A bad search space is refused before anything starts, with the line that is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.training.config import preset_names, train_config
from schn_ray.tuning.space import (
    Space,
    base_config,
    check_space,
    read_space,
    space_names,
    starting_point,
)
from schn_ray.tuning.trial_settings import value_of, with_values

GOOD: dict[str, Any] = {
    "preset": "digits",
    "parameters": {"method.quantization": {"log": [0.1, 100]}},
}


def space(**changed: Any) -> Space:
    return validated(Space, GOOD | changed)


def complaint(search_space: Space, preset: str | None = None) -> str:
    with pytest.raises(SchnRayError) as refused:
        check_space(search_space, base_config(search_space, preset, None, ()))
    return str(refused.value)


@pytest.mark.parametrize("name", space_names())
def test_spaces_that_come_with_the_package_fit_every_preset(name: str) -> None:
    search_space, refused = read_space(name), dict[str | None, str]()
    for preset in (None, *preset_names()):
        try:
            check_space(search_space, base_config(search_space, preset, None, ()))
        except SchnRayError as error:
            refused[preset] = str(error)
    assert refused == {}


@pytest.mark.parametrize("name", space_names())
def test_trial_0_is_as_published(name: str) -> None:
    search_space = read_space(name)
    base = base_config(search_space, None, None, ())
    first = base.config(starting_point(search_space, base, 0))
    published = train_config(search_space.preset, method="schn")
    same = published.method.model_copy(update={"name": first.method.name})
    assert first.method.model_dump() == same.model_dump()


@pytest.mark.parametrize(
    ("key", "domain", "message"),
    [
        ("method.cycle_imag", {"log": [1, 2]}, "did you mean 'method.cycle_image'"),
        ("loss", {"log": [1, 2]}, "unknown setting 'loss'"),
        ("seed", {"integer": [0, 9]}, "its best value is luck"),
        ("method.cycle_image", {"linear": [2, 2]}, "is empty"),
        ("method.cycle_image", {"linear": [2, 1]}, "is empty"),
        ("method.cycle_image", {"log": [0, 1]}, "begins above 0"),
        ("method.cycle_image", {"linear": [-1, 1]}, "greater than or equal to 0"),
        ("method.cycle_image", {"linear": [0, 1], "step": 2}, "'step' belongs to 'integer'"),
        ("bits", {"linear": [16, 64]}, "give it 'integer', not 'linear'"),
        ("bits", {"integer": [16, 60], "step": 8}, "steps of 8 from 16 do not end at 60"),
        ("method.initial_codes", {"linear": [0, 1]}, "give it 'choices', not 'linear'"),
        ("method.update_codes", {"integer": [0, 1]}, "give it 'choices', not 'integer'"),
        ("method.initial_codes", {"choices": ["zeros"]}, "two or more different choices"),
        ("method.initial_codes", {"choices": ["zeros", "zeros"]}, "two or more different choices"),
        (
            "method.initial_codes",
            {"choices": ["zeros", "ones"]},
            "Input should be 'zeros', 'random'",
        ),
        ("bits", {"choices": ["16", "32"]}, "which a config reads as 16"),
        ("schedule.patience", {"linear": [1, 5]}, "give it 'integer'"),
        (
            "method.alpha",
            {"linear": [0, 4], "when": {"method.beta": 1}},
            "not a parameter above it",
        ),
    ],
)
def test_a_parameter_that_training_would_refuse(
    key: str, domain: dict[str, Any], message: str
) -> None:
    text = complaint(space(parameters={key: domain}))
    assert message in text
    assert key.split(".")[-1] in text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parameters": {}}, "nothing to search"),
        ({"objectives": ["query_map"]}, "objective 'query_map' is not measured"),
        ({"objectives": ["validation_map", "bits"]}, "the same in every trial"),
        ({"objectives": ["validation_map", "validation_map"]}, "named twice"),
        ({"pruning": {"grace": 8}}, "none would be stopped"),
        ({"start": [{"method.quantization": 1000}]}, "is not in log [0.1, 100]"),
        ({"start": [{"bits": 16}]}, "'bits' is not a parameter of the space"),
        ({"fixed": {"method.quantization": 3}}, "both in parameters and fixed"),
        ({"fixed": {"method.quantisation": 3}}, "unknown setting 'method.quantisation'"),
    ],
)
def test_a_space_that_means_nothing(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SchnRayError) as refused:
        check_space(space(**changed), base_config(space(**changed), None, None, ()))
    assert message in str(refused.value)


def test_bits_alone_are_no_objective() -> None:
    bits = {"bits": {"choices": [16, 32]}}
    assert "expected validation_map among them" in complaint(
        space(parameters=bits, objectives=["bits"])
    )


def test_conditions_name_choices_that_exist() -> None:
    alpha = {"linear": [0, 4], "when": {"method.initial_codes": "ones"}}
    parameters = {"method.initial_codes": {"choices": ["zeros", "random"]}, "method.alpha": alpha}
    assert "wants method.initial_codes = 'ones'" in complaint(space(parameters=parameters))
    parameters = {
        "method.beta": {"linear": [0, 1]},
        "method.alpha": alpha | {"when": {"method.beta": 1}},
    }
    assert "method.beta, which has no choices" in complaint(space(parameters=parameters))


def test_two_kinds_of_domain_and_unknown_words_are_refused() -> None:
    with pytest.raises(SchnRayError, match="expected one of log, linear, integer, choices"):
        space(parameters={"bits": {"log": [1, 2], "linear": [1, 2]}})
    with pytest.raises(SchnRayError, match="unknown setting 'prunning'; did you mean 'pruning'"):
        space(prunning={})


def test_an_inactive_parameter_has_no_value_and_keeps_the_base_s() -> None:
    search_space = space(
        parameters={
            "method.update_codes": {"choices": [True, False]},
            "method.alpha": {"linear": [0, 4], "when": {"method.update_codes": True}},
        },
        start=[{}, {"method.update_codes": False}],
    )
    base = base_config(search_space, None, None, ())
    assert starting_point(search_space, base, 0) == {
        "method.update_codes": True,
        "method.alpha": 2.0,
    }
    values = starting_point(search_space, base, 1)
    assert values == {"method.update_codes": False}
    assert base.config(values).method.alpha == base.first.method.alpha


def test_settings_of_the_command_win_but_not_over_what_is_searched() -> None:
    search_space = space(fixed={"bits": 16, "schedule.epochs": 1})
    base = base_config(search_space, None, None, ("bits=24",)).first
    assert (base.bits, base.schedule.epochs, base.backbone.name) == (24, 1, "small")
    assert base_config(search_space, "cifar10", None, ()).first.augment.pad == 4
    with pytest.raises(SchnRayError, match="the space searches that setting"):
        base_config(search_space, None, None, ("method.quantization=3",))


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "preset: digits\nparameters:\n  optimiser.learning_rate: {choices: [1e-4, 1e-3]}\n"
    )
    search_space = read_space(str(tmp_path / "s.yaml"))
    check_space(search_space, base_config(search_space, None, None, ()))
    assert search_space.parameters["optimiser.learning_rate"].choices == (1e-4, 1e-3)


def test_an_unknown_space_names_those_there_are() -> None:
    with pytest.raises(SchnRayError, match="did you mean 'quick'"):
        read_space("quik")


def test_choices_may_be_lists() -> None:
    search_space = space(parameters={"schedule.decay_after": {"choices": [[5, 7], [3]]}})
    base = base_config(search_space, None, None, ())
    check_space(search_space, base)
    changed = base.config({"schedule.decay_after": [3]})
    assert changed.schedule.decay_after == (3,)
    assert value_of(changed, "schedule.decay_after") == [3]


def test_a_config_written_as_yaml_reads_back_the_same(tmp_path: Path) -> None:
    base = with_values(train_config("digits"), {"optimiser.learning_rate": 1.2345678901e-05})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(base.model_dump(mode="json")))
    assert train_config(None, tmp_path / "c.yaml") == base
