"""Fixtures that many test modules share, and the CPU budget of a run."""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support.image_files import write_tree
from support.processes import counted_cpu_seconds
from support.users import Answer, Run

from schn_ray import cli

# no test is timed: what is quick on one machine is slow on another
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# tests fill the disk under a process, also while it imports: Python would leave half of a compiled
# file there, which no other process can import
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = True

RAY_CPU_SECONDS = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu-budget",
        type=float,
        metavar="SECONDS",
        help="fail if the whole run took more CPU time than this, its child processes included",
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail a run that outgrew its CPU budget. CPU time, as wall time depends on the machine."""
    yield  # after this the workers of xdist have ended, so that their time counts
    config = session.config
    if hasattr(config, "workerinput"):
        return
    used = config.stash.get(RAY_CPU_SECONDS, 0.0)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        used += usage.ru_utime + usage.ru_stime
    budget = config.getoption("cpu_budget")
    text = f"CPU time of this run: {used:.0f} s"
    if budget is not None:
        text += f", budget {budget:.0f} s"
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)
    if budget is not None and used > budget:
        if reporter is not None:
            reporter.write_line(
                "over budget: make the costliest tests cheaper (--durations=20) or mark them slow",
                red=True,
            )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' cache out of the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCHN_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def image_tree(tmp_path: Path) -> Path:
    """Three classes of ten small PNGs: ``cat``, ``dog``, ``owl``."""
    return write_tree(tmp_path / "images", {"cat": 10, "dog": 10, "owl": 10})


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """One Ray for the whole test session: starting it takes seconds."""
    from schn_ray.cluster.session import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(), counted_cpu_seconds() as cpu_seconds:
            yield
        request.config.stash[RAY_CPU_SECONDS] = sum(cpu_seconds.values())


@pytest.fixture
def schn_ray(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command, run in this process."""

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["schn-ray", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return Answer(int(stopped.value.code or 0), *capfd.readouterr())

    return run
