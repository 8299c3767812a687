"""The generated page, and methods from files of one's own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schn_ray.cli import app
from schn_ray.core.errors import SchnRayError
from schn_ray.methods.catalogue import catalogue_markdown
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.training.config import train_config

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_method.py"


def test_the_page_of_methods_is_fresh() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    assert page == catalogue_markdown(), "run: schn-ray methods --markdown > docs/methods.md"


def test_methods_are_listed_and_described() -> None:
    listed = CliRunner().invoke(app, ["methods"]).output.splitlines()
    assert [line.split()[0] for line in listed] == list(METHODS)
    described = json.loads(CliRunner().invoke(app, ["methods", "csq", "--json"]).output)
    assert described["paper"].endswith("CVPR 2020")
    settings = {setting["key"]: setting for setting in described["settings"]}
    assert settings["method.quantization"]["default"] == 0.05


def test_a_class_of_a_file_is_a_method() -> None:
    config = train_config("digits", None, ("method.margin=0.3",), f"{EXAMPLE}:Margin")
    assert config.method.model_dump()["margin"] == 0.3
    assert find_method(config.method.name) is find_method(f"{EXAMPLE}:Margin")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("x = 1\n", "Mine", "has no subclass of Method or ShallowFit named Mine"),
        ("class Mine: pass\n", "Mine", "has no subclass"),
        ("import nothing_of_this_name\n", "Mine", "cannot be imported: No module named"),
        ("def broken(:\n", "Mine", "cannot be imported: invalid syntax"),
    ],
)
def test_a_file_without_a_method_is_refused(
    text: str, name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(SchnRayError, match=message):
        find_method(f"{tmp_path / 'mine.py'}:{name}")
    with pytest.raises(SchnRayError, match="no file"):
        find_method(f"{tmp_path / 'theirs.py'}:{name}")


def test_nothing_but_the_registry_knows_a_method_by_name() -> None:
    """All other rooms work with methods that do not exist yet."""
    controls = {"lsh", "itq"}  # names of figures, too
    words = [f'"{name}"' for name in METHODS if name not in controls] + ["methods.deep."]
    rooms = ("training", "cluster", "evaluation", "report", "tuning", "retrieval", "models")
    for room in rooms:
        for file in (ROOT / "schn_ray" / room).rglob("*.py"):
            named = [word for word in words if word in file.read_text()]
            assert not named, f"{file.relative_to(ROOT)}: {named}"
