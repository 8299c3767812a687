"""Blocks of README.md and docs/: commands parse, Python compiles, YAML loads, none is left out."""

import ast
import re
import tomllib
from typing import Any

import pytest
import yaml
from support.documents import (
    LANGUAGES,
    ROOT,
    Block,
    all_blocks,
    blocks_of,
    commands_of,
    documents,
    spans_of,
)
from typer._click.exceptions import ClickException
from typer.main import get_command

import schn_ray
from schn_ray.cli import app

MARK = re.compile(r"run by (tests/[\w/]+\.py)::(\w+)|not run: needs [\w ,']+")
OTHERS = {
    "cd",
    "curl",
    "done",
    "embedding-atlas",
    "export",
    "for",
    "git",
    "hf",
    "ls",
    "ray",
    "xargs",
}
GROUP: Any = get_command(app)
BLOCKS = all_blocks()


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def parse(words: list[str]) -> None:
    """Parse as the command line does: verbs, options and the types of their values."""
    with GROUP.make_context("schn-ray", words, resilient_parsing=False) as context:
        name, verb, rest = GROUP.resolve_command(context, words)
        params = verb.make_context(name, list(rest), parent=context).params
    if name == "submit":
        parse(params["command"])


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "schn-ray":
        parse(rest)
    elif program == "python":
        check_program(rest)
    elif program == "pip":
        check_extras(rest[-1])
    elif program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text()
    else:
        assert program in OTHERS, f"who runs {program}?"


def check_program(words: list[str]) -> None:
    if words[0] == "-m":
        assert ROOT.joinpath(*words[1].split(".")).with_suffix(".py").is_file(), words[1]
        return
    assert (ROOT / words[0]).is_file()
    if words[0].startswith("jobs/"):
        (verb,) = re.findall(r'^main\("(\w+)"\)', (ROOT / words[0]).read_text(), re.MULTILINE)
        parse([verb, *words[1:]])


def check_extras(requirement: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in re.findall(r"[\w-]+", requirement.partition("[")[2]):
        assert name in extras["optional-dependencies"]


@pytest.mark.parametrize("block", of("", "sh"), ids=str)
def test_commands_parse(block: Block) -> None:
    commands = commands_of(block.text)
    assert commands
    for words in commands:
        try:
            check(words)
        except ClickException as error:
            pytest.fail(f"{block}: {' '.join(words)}: {error.format_message()}")


def test_there_are_commands_and_a_wrong_one_is_seen() -> None:
    assert sum(len(commands_of(block.text)) for block in of("", "sh")) > 80
    for wrong in (["trian", "store"], ["train", "store", "--out", "run", "--wurkers", "2"]):
        with pytest.raises(ClickException):
            parse(wrong)
    with pytest.raises(ClickException):
        parse(["submit", "--address", "http://h:1", "train", "store", "--outt", "run"])
    assert commands_of("A=1 a 'b c' \\\n  d | e  # f\n#g\nh && i") == [
        ["a", "b c", "d"],
        ["e"],
        ["h"],
        ["i"],
    ]


def test_commands_within_sentences_name_verbs_and_options() -> None:
    spans = [(file, span) for file in documents() for span in spans_of(file)]
    assert len(spans) > 50
    for file, span in spans:
        _, *words = span.split()
        if words[0] not in GROUP.commands:
            assert words[0] == "VERB" or words[0].startswith("-"), f"{file.name}: {span}"
            continue
        verb = GROUP.commands[words[0]]
        if verb.name == "submit":  # what follows is another verb's
            continue
        options = {name for param in verb.params for name in [*param.opts, *param.secondary_opts]}
        named = set(re.findall(r"(?<= )-{1,2}[a-z][a-z-]*", span))
        assert named <= options | {"-h", "--help"}, f"{file.name}: {span}"


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles_and_names_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "schn_ray":
                assert node.attr in schn_ray.__all__
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("schn_ray"):
            pytest.fail(f"{block}: use what import schn_ray offers")


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_loads(block: Block) -> None:
    assert isinstance(yaml.safe_load(block.text), dict)


def test_every_block_says_who_runs_it() -> None:
    for block in BLOCKS:
        assert block.language in LANGUAGES, block
        if not block.mark:
            assert block.is_run or block.language in ("yaml", "text"), f"{block}: nobody runs it"
            assert block.language != "bash", f"{block}: sh, so that its commands are checked"
            continue
        mark = MARK.fullmatch(block.mark)
        assert mark, f"{block}: {block.mark}"
        if mark[1]:
            assert f"\ndef {mark[2]}(" in (ROOT / mark[1]).read_text(), f"{block}: {block.mark}"


def test_no_fence_is_overlooked() -> None:
    for file in documents():
        fences = len(re.findall(r"^ *```", file.read_text(), re.MULTILINE))
        assert fences == 2 * len(blocks_of(file)), file.name
