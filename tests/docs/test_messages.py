"""Messages that docs/troubleshooting.md explains are those that the code has."""

import ast
import re
from pathlib import Path

import pytest
from support.documents import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


def text_of(node: ast.expr) -> str:
    """A string as a user may see it, with ``...`` for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return "..."


def strings_of(file: Path) -> list[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return [text_of(n) for n in nodes if isinstance(n, ast.Constant | ast.JoinedStr)]


@pytest.fixture(scope="module")
def strings() -> str:
    files = (ROOT / "schn_ray").rglob("*.py")
    return "\0".join(" ".join(text.split()) for file in files for text in strings_of(file))


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_has_the_message(message: str, strings: str) -> None:
    assert message.removesuffix(" ...").strip() in strings


def test_there_are_messages_of_every_kind(strings: str) -> None:
    assert len(MESSAGES) >= 20
    assert "no message of ours" not in strings
