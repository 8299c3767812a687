"""SIGKILL in the middle of encoding on Ray, by the script that anyone can run for longer.

It also kills actors, and a node of a test cluster. What a killed driver leaves is tested for every
moment, without Ray, in tests/chains/test_faults_of_verbs.py; this takes minutes: SCHN_RAY_TRIALS=1.
"""

import subprocess
import sys
from pathlib import Path

from support.trials import takes_minutes

ROOT = Path(__file__).parents[2]


@takes_minutes
def test_a_kill_of_the_driver_changes_no_row() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale.encode_kills",
        "--moments",
        "1",
        "--kinds",
        "driver",
    ]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    kills = [line.split(" of ")[0].rstrip("0123456789") for line in ended.stdout.splitlines()]
    assert kills == ["driver 1: killed after "], ended.stdout
