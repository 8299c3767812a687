"""``schn-ray settings``: what it says of each setting is what the verbs do."""

import json
import math
from inspect import isfunction, signature
from pathlib import Path

import pytest
from support.users import Run

import schn_ray as face
from schn_ray.cli.album.stages import album_config
from schn_ray.cli.settings_page import NOTES
from schn_ray.core.described_settings import Setting
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Section, load_settings
from schn_ray.data.config import CheckConfig, PrepareConfig
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.methods.registry import METHODS
from schn_ray.models.embed import EmbedConfig
from schn_ray.retrieval.config import EncodeConfig, ServeConfig
from schn_ray.training.config import train_config

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
CONFIGS: dict[str, type[Section]] = {
    "check": CheckConfig,
    "prepare": PrepareConfig,
    "embed": EmbedConfig,
    "encode": EncodeConfig,
    "evaluate": EvaluateConfig,
    "serve": ServeConfig,
}
TRIED = [setting for verb in CONFIGS for setting in face.settings(verb).verbs[verb]]


def test_the_page_is_fresh() -> None:
    page = face.settings().to_markdown()
    assert PAGE.read_text() == page, "run: schn-ray settings --markdown > docs/settings.md"


def test_every_setting_says_what_it_means() -> None:
    described = [s for settings in face.settings().verbs.values() for s in settings]
    for method in METHODS:
        described += face.settings("train", method=method).verbs["train"]
    silent = {setting.key for setting in described if len(setting.meaning.split()) < 2}
    assert not silent


def load(verb: str, line: str) -> Section:
    if verb == "train":
        return train_config(settings=(line,))
    return load_settings(CONFIGS[verb], settings=(line,))


@pytest.mark.parametrize("verb", CONFIGS)
def test_defaults_change_nothing(verb: str) -> None:
    unchanged = load_settings(CONFIGS[verb])
    for setting in face.settings(verb).verbs[verb]:
        if setting.key != "backbone.weights":  # embed's are pretrained, unlike its class's
            line = f"{setting.key}={setting.default_text}"
            assert load(verb, line) == unchanged, line


def test_defaults_of_train_are_those_of_the_method() -> None:
    for method in ("csq", "itq"):
        lines = [
            f"{setting.key}={setting.default_text}"
            for setting in face.settings("train", method=method).verbs["train"]
        ]
        assert train_config(method=method) == train_config(settings=tuple(lines), method=method)
    described = {s.key: s.default for s in face.settings("build", method="itq").verbs["build"]}
    assert described["bits"] == album_config("itq").bits == 128


@pytest.mark.parametrize("verb", [*CONFIGS, "train"])
def test_bounds_are_those_that_are_checked(verb: str) -> None:
    tried = 0
    for setting in face.settings(verb).verbs[verb]:
        for value, accepted in around(setting):
            text = f"[{value}]" if setting.type.startswith("list") else str(value)
            tried += 1
            if accepted:
                load(verb, f"{setting.key}={text}")
            else:
                with pytest.raises(SchnRayError, match=setting.key):
                    load(verb, f"{setting.key}={text}")
    assert tried >= 4


def around(setting: Setting) -> list[tuple[float, bool]]:
    """Values at and beyond the bounds that the text states, and whether they are allowed."""
    step = 1 if "integer" in setting.type else 1e-9
    values: list[tuple[float, bool]] = []
    least, to, most = setting.bounds.partition(" to ")
    bounds = [f">= {least}", f"<= {most}"] if to else filter(None, setting.bounds.split(", "))
    for bound in bounds:
        sign, limit = bound.split()
        number = type(step)(limit)
        beyond = number - step if sign[0] == ">" else number + step
        values += [(number, sign.endswith("=")), (beyond, False)]
        assert math.isfinite(beyond)
    return values


def test_choices_are_those_that_are_accepted() -> None:
    choices = [s for s in TRIED if s.type.startswith(("encoded, ", "float16, ", "refuse, "))]
    assert {s.key for s in choices} == {"gallery", "dtype", "audit"}
    for setting in choices:
        verb = "embed" if setting.key == "dtype" else "evaluate"
        for choice in setting.type.split(", "):
            load(verb, f"{setting.key}={choice}")


def test_the_command_prints_them(schn_ray: Run) -> None:
    answer = schn_ray("settings", "train", "--method", "csq")
    assert "method.quantization = 0.05  (number, >= 0; searched: log [0.0001, 1])" in answer.out
    listed = json.loads(schn_ray("settings", "serve", "--json").out)
    assert [setting["default"] for setting in listed if setting["key"] == "port"] == [8000]
    table = schn_ray("settings", "train", "--method", "csq", "--markdown").out
    assert table.startswith("## train\n")
    assert "| `method.quantization` | `0.05` | number, >= 0 |" in table
    overview = schn_ray("settings").out.splitlines()
    assert [line.split()[0] for line in overview[: len(NOTES)]] == list(NOTES)


@pytest.mark.parametrize(
    ("verb", "method", "message"),
    [
        ("trian", None, "'trian' has no settings; did you mean 'train'"),
        ("doctor", None, "'doctor' has no settings"),
        ("encode", "csq", "only train, tune, build learn"),
        (None, "csq", "only train, tune, build learn"),
        ("train", "csqq", "did you mean 'csq'"),
    ],
)
def test_what_there_is_not(verb: str | None, method: str | None, message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        face.settings(verb, method=method)


def test_every_verb_that_takes_settings_is_described() -> None:
    takers = {
        name
        for name in face.__all__
        if isfunction(getattr(face, name))
        if "settings" in signature(getattr(face, name)).parameters
    }
    assert takers == set(NOTES)
