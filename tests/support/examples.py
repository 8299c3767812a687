"""Run a program of examples/ as a user does, with arguments."""

import runpy
import sys
from pathlib import Path

import pytest

from support.users import TINY

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("backbone.name=small", "backbone.weights=null", *TINY)
ONE = ("schedule.iterations=1", "schedule.epochs=1", "schedule.samples=64", *SMALL)


def run_example(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"examples/{name}", *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
