"""The fenced blocks of README.md and docs/*.md, the commands in them, and how they are marked.

A block of commands is run by ``tests/docs/test_blocks_run.py``, unless a comment right above it
says who runs it, or why nobody does:

    <!-- run by tests/retrieval/test_engines.py::test_recipes_give_the_nearest -->
    <!-- not run: needs a cluster -->
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = ("", "sh", "bash")
LANGUAGES = (*COMMANDS, "python", "yaml", "sql", "text")
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OPERATORS = {"|", "||", "&&", ";", "&", ">"}
_VARIABLE = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    file: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in (*COMMANDS, "python") and not self.mark


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(file: Path) -> list[Block]:
    text = file.read_text()
    return [
        Block(
            file,
            text[: match.start()].count("\n") + 1 + bool(match["mark"]),
            match["language"],
            match["mark"] or "",
            re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
        )
        for match in _FENCE.finditer(text)
    ]


def all_blocks() -> list[Block]:
    return [block for file in documents() for block in blocks_of(file)]


def commands_of(text: str) -> list[list[str]]:
    """The words of each command: comments and variables are left out, pipes end a command."""
    commands: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _OPERATORS:
                while words and _VARIABLE.match(words[0]):
                    del words[0]
                if words:
                    commands.append(words)
                words = []
            else:
                words.append(word)
    return commands


def spans_of(file: Path) -> list[str]:
    """The commands of ours within sentences, as far as they are written out there."""
    prose = _FENCE.sub("", file.read_text())
    return [
        " ".join(span.split())
        for span in re.findall(r"`([^`]+)`", prose)
        if span.startswith("schn-ray ")
    ]
