"""The verbs that need no Ray under every fault of ``support.faults``.

A sample of the faults; SCHN_RAY_TRIALS=1 tries all of them, and 200 damages of every kind of file.
"""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import torch
from support.fault_verbs import UPDATES, VERBS, change_photos, export_before, make_inputs
from support.faults import (
    Verb,
    check_damage,
    check_full_disk,
    check_kills,
    check_signals,
    check_two,
    ends,
)
from support.trials import TAKES_MINUTES, on_trial

from schn_ray.cli.cluster import _follow

WRITERS = [
    name
    for name in VERBS
    if name not in ("comparison", "service", "codes of a store", "run with features")
]
# a line of metrics has no digest of its own until the run is finished
READERS = [name for name, verb in VERBS.items() if verb.reads and name != "report of a begun run"]
PAIRS = [
    *(f"{name}, {name}" for name in WRITERS if name != "begun run"),
    "codes, codes of a store",
    "run, run with features",
]


def each(
    names: Iterable[str], slow: Sequence[str] = (), quick: Sequence[str] = ()
) -> pytest.MarkDecorator:
    """Parametrise a test with verbs: some are quick, some slow, and the others take minutes."""
    marks = {name: () for name in quick} | {name: pytest.mark.slow for name in slow}
    params = [
        pytest.param(name, marks=marks.get(name, [pytest.mark.slow, TAKES_MINUTES]))
        for name in names
    ]
    return pytest.mark.parametrize("name", params)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # processes that fork have one


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def changed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change_photos(root, tmp_path_factory.mktemp("changed"))


def verb(name: str, root: Path) -> Verb:
    if name == "export":
        pytest.importorskip("onnxscript")
        export_before(root)
    return VERBS[name]


@each(WRITERS, ["store", "run", "codes", "features", "evaluation", "matches"], ["index"])
def test_killed_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_kills(verb(name, root), root, tmp_path, on_trial(1, 3)) > 0


@each(UPDATES, [*UPDATES])
def test_an_update_killed_at_every_file(name: str, changed: Path, tmp_path: Path) -> None:
    assert check_kills(UPDATES[name], changed, tmp_path, on_trial(1, 3)) > 0


@each(WRITERS, ["store", "evaluation"])
def test_a_signal_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_signals(verb(name, root), root, tmp_path, on_trial(1, 12)) > 0


@each(WRITERS, ["run", "evaluation"])
def test_a_full_disk_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_full_disk(verb(name, root), root, tmp_path, on_trial(1, 12)) > 0


@each(UPDATES)
def test_an_update_on_a_full_disk(name: str, changed: Path, tmp_path: Path) -> None:
    assert check_full_disk(UPDATES[name], changed, tmp_path, on_trial(1, 12)) > 0


@each(READERS, ["codes", "report", "service"], ["comparison"])
def test_damage_of_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_damage(verb(name, root), root, tmp_path, on_trial(200, 1)) > 1


@each(UPDATES, ["store"])
def test_damage_before_an_update(name: str, changed: Path, tmp_path: Path) -> None:
    assert check_damage(UPDATES[name], changed, tmp_path, on_trial(200, 2)) > 1


@each(PAIRS, ["evaluation, evaluation", "report, report"])
def test_two_at_once(name: str, root: Path, tmp_path: Path) -> None:
    first, second = name.split(", ")
    writes, also = verb(first, root), verb(second, root)
    said = "another process|another request"
    assert check_two(writes, also, root, tmp_path, on_trial(1, 20), said) > 0


@each(UPDATES, ["store"])
def test_two_updates_at_once(name: str, changed: Path, tmp_path: Path) -> None:
    update = UPDATES[name]
    assert check_two(update, update, changed, tmp_path, on_trial(1, 20)) > 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_job_is_followed(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    class Jobs:
        def follow(self, job: str, show: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), sent)
            time.sleep(9)

    end = ends(lambda root, out: _follow(Jobs(), "job-1"), tmp_path, tmp_path)
    assert end.code == code, end
    assert "job job-1 goes on; the same command follows it again" in end.text
    assert "Traceback" not in end.text
