from pathlib import Path

import pytest

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import keys, parse_workers
from schn_ray.data.config import PrepareConfig
from schn_ray.methods.registry import METHODS
from schn_ray.training.config import preset_names, train_config


@pytest.mark.parametrize("preset", [None, *preset_names()])
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_suits_every_method(preset: str | None, method: str) -> None:
    config = train_config(preset, method=method)
    assert (config.bits, config.method.name) == (32, method)


def test_schn_is_as_published() -> None:
    config = train_config(method="schn")
    assert config.backbone.name == "alexnet"
    assert (config.method.label_graph, config.method.latent_activation) == ("sum", "sigmoid")
    assert (config.method.initial_codes, config.method.alpha, config.method.beta) == (
        "zeros",
        2.0,
        0.1,
    )
    assert (config.method.quantization, config.method.negative_target) == (10.0, "zero")
    schedule, optimiser = config.schedule, config.optimiser
    assert (schedule.iterations, schedule.epochs, schedule.samples) == (50, 3, 5000)
    assert (schedule.batch_size, optimiser.learning_rate) == (64, 4e-5)
    assert (optimiser.weight_decay, schedule.decay_after) == (1e-5, (5, 40))


def test_mmasia_has_no_adversarial_part_and_another_cycle() -> None:
    config = train_config(method="schn-mmasia")
    assert (config.method.adversarial, config.method.cycle) == (0, "schn-mmasia")


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("bits: 48\nschedule: {iterations: 7}\n")
    config = train_config("digits", file, ("schedule.iterations=9", "seed=3"))
    assert (config.bits, config.schedule.iterations, config.seed) == (48, 9, 3)
    assert config.schedule.samples == 1000


def test_a_number_in_scientific_notation_is_a_number() -> None:
    for text, value in [("1e-3", 1e-3), ("2E4", 2e4), ("-1e-3", None), ("0.5", 0.5)]:
        setting = (f"optimiser.learning_rate={text}",)
        if value is None:
            with pytest.raises(SchnRayError, match="greater than 0"):
                train_config(settings=setting)
        else:
            assert train_config(settings=setting).optimiser.learning_rate == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("bist=16",), "unknown setting 'bist'; did you mean 'bits'"),
        (("hash_imag=2",), "did you mean 'method.hash_image'"),
        (("method.hash_imag=2",), "did you mean 'method.hash_image'"),
        (("bits=0",), "setting 'bits': Input should be greater than or equal to 1, got 0"),
        (("bits=many",), "setting 'bits'.*got 'many'"),
        (("bits",), "wanted key=value"),
        (("bits=[",), "not YAML"),
        (("method.negative_target=hard",), "'zero' or 'soft'"),
    ],
)
def test_a_wrong_setting_is_named(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        train_config(settings=settings)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("network.backbone=small", "backbone.name"),
        ("network.latent_dim=8", "method.latent_dim"),
        ("loss.quantization=1", "method.quantization"),
        ("codes.init=random", "method.initial_codes"),
        ("schedule.learning_rate=1", "optimiser.learning_rate"),
    ],
)
def test_an_old_setting_is_refused_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(SchnRayError, match=f"'{old.split('=')[0]}' is called '{new}' now"):
        train_config(settings=(old,))


def test_a_method_is_no_preset() -> None:
    with pytest.raises(SchnRayError, match="--method schn-plus"):
        train_config("schn-plus")


def test_a_file_chooses_the_method_and_an_argument_wins(tmp_path: Path) -> None:
    file = tmp_path / "csq.yaml"
    file.write_text("method: {name: csq, quantization: 0.5}\n")
    config = train_config(file=file)
    assert (config.method.name, config.method.model_dump()["quantization"]) == ("csq", 0.5)
    assert train_config(file=file, method="schn").method.name == "schn"
    with pytest.raises(SchnRayError, match="no method 'csw'; did you mean 'csq'"):
        train_config(method="csw")
    with pytest.raises(SchnRayError, match=r"unknown setting 'method\.hash_image'"):
        train_config(method="csq", settings=("method.hash_image=2",))


def test_wrong_files_and_presets_are_named(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match=r"no preset 'digit'; did you mean 'digits'"):
        train_config("digit")
    with pytest.raises(SchnRayError, match="no config file"):
        train_config(file=tmp_path / "none.yaml")
    for text in ("- a\n- b\n", "a: [\n"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(SchnRayError, match=r"bad\.yaml"):
            train_config(file=tmp_path / "bad.yaml")


def test_keys_are_all_settable() -> None:
    assert "source.label_column" in keys(PrepareConfig)
    values = train_config().model_dump(mode="json")
    for key in keys(type(train_config())):
        value = values
        for part in key.split("."):
            value = value[part]
        text = "null" if value is None else str(value).replace("'", "")
        assert train_config(settings=(f"{key}={text}",)) == train_config()


def test_ranges_that_are_none() -> None:
    assert parse_workers("3") == (3, 3)
    assert parse_workers("2:16") == (2, 16)
    for text in ("", "0", "-1", "2:", ":2", "4:2", "0:2", "two", "1:2:3", "1.5"):
        with pytest.raises(SchnRayError, match="wanted a number such as 4, or a range"):
            parse_workers(text)


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["method.cycle_image", "optimiser.learning_rate", "method.alpha"])
def test_a_number_is_finite(key: str, value: str) -> None:
    with pytest.raises(SchnRayError, match=f"setting '{key}'"):
        train_config(settings=(f"{key}={value}",))


def test_a_key_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("bits: 16\nbits: 32\n")
    with pytest.raises(SchnRayError, match="the key 'bits' comes twice"):
        train_config(file=file)
