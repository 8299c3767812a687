"""SIGKILL in the middle of encoding, through the script that benchmarks/README.md describes."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "encode_kills.py"


@pytest.mark.parametrize("kind", ["driver", "actor", "node"])
def test_a_kill_changes_no_row(kind: str) -> None:
    command = [sys.executable, str(SCRIPT), "--moments", "1", "--kinds", kind]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.startswith(f"{kind} 1: killed after "), ended.stdout
