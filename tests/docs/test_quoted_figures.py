"""The figures of docs/choosing.md are those of benchmarks/README.md."""

import re

from support.documents import ROOT

FIGURE = re.compile(r"(?<![\w.-])\d{0,2}(?:,\d{3}|\.\d{3})(?![\w.])")


def figures_of(file: str) -> list[str]:
    text = (ROOT / file).read_text()
    return [figure.removeprefix("0") for figure in FIGURE.findall(text)]


def test_every_figure_was_measured() -> None:
    figures, measured = figures_of("docs/choosing.md"), set(figures_of("benchmarks/README.md"))
    assert len(figures) > 30
    assert not [figure for figure in figures if figure not in measured]
