"""Kill a search at random moments, run the same command again: it must end as one search.

    python -m benchmarks.tuning.kills --kills 10

A search of 12 trials of a few seconds each, two at once, with pruning. SIGKILL hits the command or
the process of a trial, in turn, at a random moment after some iterations. After each kill of the
command, the trials that had ended must have the same settings, figures and states as before, and
their files must not have been written again. In the end there must be 12 trials, all ended, no
two with the same settings, and trial 0 the one that the first command began with.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.support.digits import TINY, prepare_digits
from benchmarks.support.processes import end, marked, started
from schn_ray.core.manifest import is_finished, read_manifest
from schn_ray.training.metrics_file import METRICS, read_metrics
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.space import base_config, read_space
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY

TRIALS, AT_ONCE = 12, 2
ITERATIONS = 10  # of each trial: enough for ten kills
SPACE = {
    "preset": "digits",
    "fixed": TINY
    | {
        "schedule.iterations": ITERATIONS,
        "schedule.samples": 300,
        "schedule.decay_after": [8],
    },
    "parameters": {
        "optimiser.learning_rate": {"log": [1e-4, 1e-2]},
        "method.quantization": {"log": [0.1, 100]},
        "method.initial_codes": {"choices": ["zeros", "random", "hadamard"]},
    },
    "start": [{"method.initial_codes": "zeros"}, {}],
    "pruning": {"grace": 2, "factor": 2},
}


def main() -> None:
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), arguments.seed)
        for kill in range(arguments.kills):
            print(f"kill {kill + 1}: {job.killed(('command', 'trial')[kill % 2])}", flush=True)
        print(job.finished(), flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


class Job:
    """A store, a search of it, and what was seen of the search so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.out = random.Random(seed), folder / "search"
        self.store, self.space = folder / "store", folder / "space.yaml"
        self.space.write_text(yaml.safe_dump(SPACE))
        prepare_digits(self.store)
        self.command = [sys.executable, "-m", "schn_ray", "tune", str(self.store)]
        self.command += ["--space", str(self.space), "--out", str(self.out)]
        self.command += ["--trials", str(TRIALS), "--at-once", str(AT_ONCE)]
        self.seen: dict[int, tuple[TrialRow, float]] = {}
        self.first: dict[str, Any] | None = None

    def killed(self, what: str) -> str:
        """Run the command, strike, and compare what is left with what was there before."""
        if is_finished(self.out):
            return "the search is finished already"
        wanted = self.iterations() + self.random.randrange(1, 5)
        with started(self.command) as (process, mark):
            self._wait(process, wanted)
            assert process.poll() in (None, 0), f"the command failed with {process.returncode}"
            time.sleep(self.random.random())
            if what == "trial":
                trials = marked(mark, lambda line: "ray::" in line and "ImplicitFunc" in line)
                end(self.random.choice(trials) if trials else 0)
                self._wait(process, self.iterations() + 2)  # it goes on by itself
            process.kill()
            process.wait()
            _wait_until_gone(mark)
        ended = self.compare()
        return f"{what}, after {self.iterations()} iterations and {ended} trials that had ended"

    def finished(self) -> str:
        """Run the command to its end and look at the whole."""
        with started(self.command) as (process, _):
            assert process.wait(900) == 0, process.returncode
        self.compare()
        rows = self.rows()
        assert [row.number for row in rows] == list(range(TRIALS)), rows
        assert all(row.state in ("complete", "pruned") for row in rows), rows
        settings = {repr(sorted(row.values.items())) for row in rows}
        assert len(settings) == TRIALS, "settings were tried twice"
        for row in rows:
            lines = [line["iteration"] for line in read_metrics(self.run(row.number))]
            assert lines == list(range(1, len(lines) + 1)), "an iteration is missing or twice"
            assert row.state == "pruned" or len(lines) == ITERATIONS, (row, lines)
        counts = read_manifest(self.out, "search").counts
        return f"{counts}: {TRIALS} trials, none twice, trial 0 the same, history kept"

    def compare(self) -> int:
        """Return how many trials have ended; those seen before must be untouched."""
        if not (self.out / STUDY).is_file():
            return 0
        rows = [row for row in self.rows() if row.state != "running"]
        found = {row.number: (row, self.written(row.number)) for row in rows}
        for number, (row, written) in self.seen.items():
            assert found[number] == (row, written), f"trial {number} changed after it had ended"
        self.seen = found
        begun = self.rows()
        if begun:
            self.first = self.first or begun[0].values
            assert begun[0].values == self.first, "another trial 0"
        return len(rows)

    def rows(self) -> list[TrialRow]:
        space = read_space(str(self.space))
        return Search(self.out, space, base_config(space, None, None, ())).rows()

    def run(self, number: int) -> Path:
        return self.out / "trials" / f"{number:04}"

    def written(self, number: int) -> float:
        return (self.run(number) / METRICS).stat().st_mtime

    def iterations(self) -> int:
        runs = (self.out / "trials").glob("0*")
        return sum(len(read_metrics(run)) for run in runs)

    def _wait(self, process: subprocess.Popen[bytes], iterations: int) -> None:
        deadline = time.monotonic() + 300
        while self.iterations() < iterations and process.poll() is None:
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)


def _wait_until_gone(mark: str) -> None:
    deadline = time.monotonic() + 120
    while marked(mark, lambda line: "ImplicitFunc" in line):
        assert time.monotonic() < deadline, "a trial outlives its search"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
