"""YAML and JSON from outside: what is hostile or ambiguous is an error, at once."""

import json

import pytest
import yaml

from schn_ray.core.documents import MOST_YAML_BYTES, BadDocument, parse_json, parse_yaml

BOMB = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [*{before}, *{before}, *{before}]\n"
    for before, after in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
)


def test_plain_values_are_those_of_yaml() -> None:
    text = "a: 1\nb: [x, 2.5, null, true]\nc: {d: '1e-3', e: 1e-3}\n"
    expected = yaml.safe_load(text)
    expected["c"]["e"] = 1e-3  # YAML 1.1 has it as text
    assert parse_yaml(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, r"x is not YAML.*aliases \(\*name\) are not allowed"),
        ("a: &a [*a]", "aliases"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("{a: " * 100_000, "nested more than 64 deep"),
        ("bits: 16\nloss: {cycle: 1}\nbits: 32", "the key 'bits' comes twice"),
        ("a: {b: 1, b: 2}", "the key 'b' comes twice"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"a: \xff\xfe", "x is not YAML"),
        ("a: b: c", "x is not YAML"),
        ("a: " + "x" * MOST_YAML_BYTES, "at most 1,048,576 are read"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_yaml_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(BadDocument, match=f"(?s){problem}"):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "x is nested too deeply"),
        ('{"a":' * 100_000, "x is nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' comes twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        (b"\xff", "x is not JSON"),
        ("{", "x is not JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_json_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(BadDocument, match=problem):
        parse_json(text, "x")


def test_plain_json_is_read() -> None:
    values = {"a": [1, 2.5, None, True, "é"], "b": {"c": {}}}
    assert parse_json(json.dumps(values), "x") == values
