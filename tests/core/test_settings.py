from pathlib import Path

import pytest

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import keys, parse_workers
from schn_ray.data.config import PrepareConfig
from schn_ray.training.config import DEFAULT_PRESET, TrainConfig, preset_names, train_config


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_a_valid_config(preset: str) -> None:
    assert train_config(preset).bits == 32


def test_schn_is_as_published() -> None:
    config = train_config("schn")
    assert config.network.backbone == "alexnet"
    assert (config.network.label_graph, config.network.latent_activation) == ("sum", "sigmoid")
    assert (config.codes.init, config.codes.alpha, config.codes.beta) == ("zeros", 2.0, 0.1)
    assert (config.loss.quantization, config.loss.negative_target) == (10.0, "zero")
    schedule = config.schedule
    assert (schedule.iterations, schedule.epochs, schedule.samples) == (50, 3, 5000)
    assert (schedule.batch_size, schedule.learning_rate) == (64, 4e-5)
    assert (schedule.weight_decay, schedule.decay_after) == (1e-5, (5, 40))


def test_mmasia_has_no_adversarial_part_and_another_cycle() -> None:
    config = train_config("schn-mmasia")
    assert (config.loss.adversarial, config.network.cycle) == (0, "schn-mmasia")


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("bits: 48\nschedule: {iterations: 7}\n")
    config = train_config(DEFAULT_PRESET, file, ("schedule.iterations=9", "seed=3"))
    assert (config.bits, config.schedule.iterations, config.seed) == (48, 9, 3)
    assert config.schedule.epochs == 3


def test_a_number_in_scientific_notation_is_a_number() -> None:
    for text, value in [("1e-3", 1e-3), ("2E4", 2e4), ("-1e-3", None), ("0.5", 0.5)]:
        setting = (f"schedule.learning_rate={text}",)
        if value is None:
            with pytest.raises(SchnRayError, match="greater than 0"):
                train_config(settings=setting)
        else:
            assert train_config(settings=setting).schedule.learning_rate == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("bist=16",), "unknown setting 'bist'; did you mean 'bits'"),
        (("hash_imag=2",), "did you mean 'loss.hash_image'"),
        (("loss.hash_imag=2",), "did you mean 'loss.hash_image'"),
        (("bits=0",), "setting 'bits': Input should be greater than or equal to 1, got 0"),
        (("bits=many",), "setting 'bits'.*got 'many'"),
        (("bits",), "wanted key=value"),
        (("bits=[",), "not YAML"),
        (("loss.negative_target=hard",), "'zero' or 'soft'"),
    ],
)
def test_a_wrong_setting_is_named(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        train_config(settings=settings)


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
    for key in keys(TrainConfig):
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
@pytest.mark.parametrize("key", ["loss.cycle_image", "schedule.learning_rate", "codes.alpha"])
def test_a_number_is_finite(key: str, value: str) -> None:
    with pytest.raises(SchnRayError, match=f"setting '{key}'"):
        train_config(settings=(f"{key}={value}",))


def test_a_key_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("bits: 16\nbits: 32\n")
    with pytest.raises(SchnRayError, match="the key 'bits' comes twice"):
        train_config(file=file)
