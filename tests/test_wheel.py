"""The wheel holds all that the package needs: it is built, installed alone, and used."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.users import TINY
from support.wheels import ROOT, build_wheel

ONE = ("schedule.iterations=1", "schedule.epochs=1", "schedule.samples=64", "bits=32", *TINY[1:])
DEMO = """
import sys
from pathlib import Path
import schn_ray

wheel, folder = Path(sys.argv[1]), Path(sys.argv[2])
assert Path(schn_ray.__file__).is_relative_to(wheel), schn_ray.__file__
print(schn_ray.check("digits", html=folder / "check.html").report.rows)
store = schn_ray.prepare("digits", folder / "store")
run = schn_ray.train(store, folder / "run", preset="digits", settings=sys.argv[3:])
codes = schn_ray.encode("digits", run, folder / "codes")
index = schn_ray.build_index(codes, folder / "index")
print(schn_ray.search(index, id=["digit-0007"], k=3, html=folder / "search.html"))
print(repr(schn_ray.evaluate(run, store)))
schn_ray.write_report(run, folder / "report.html")

from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.server.app import application
from schn_ray.retrieval.server.service import open_service
from schn_ray.tuning.space import read_space, space_names

application(open_service(str(index), str(run), ServeConfig()))  # reads its pages
assert [read_space(name) for name in space_names()]
assert "ray" not in sys.modules
modules = [m for name, m in sys.modules.items() if name.split(".")[0] == "schn_ray"]
assert all(Path(m.__file__).is_relative_to(wheel) for m in modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a directory of their own, as ``pip install --target`` leaves them."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(target)
    return target


def run(installed: Path, *arguments: object, cwd: Path) -> str:
    """Run Python with the installed wheel before everything else, in a directory elsewhere."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    environment.pop("COVERAGE_PROCESS_START", None)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_all_files_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "schn_ray"
    files = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len({Path(name).suffix for name in files}) > 4  # pages, presets, styles, py.typed
    assert files <= names
    others = {name for name in names - files if ".dist-info/" not in name}
    assert not others  # no tests, no benchmarks


@pytest.mark.slow
def test_the_demo_s_verbs(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "demo.py").write_text(DEMO)
    out = run(installed, tmp_path / "demo.py", installed, tmp_path, *ONE, cwd=tmp_path)
    assert out.startswith("1797\ndigit-0007\n")
    assert "mAP 0." in out
    for page in ("check.html", "search.html", "report.html"):
        assert "<style>" in (tmp_path / page).read_text()


def test_the_command(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "-m", "schn_ray", "--version", cwd=tmp_path) == "schn-ray 0.1.0\n"
    help_text = run(installed, "-m", "schn_ray", "--help", cwd=tmp_path)
    assert "prepare" in help_text
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "schn-ray = schn_ray.cli:main" in points.read_text()
    where = run(installed, "-c", "import schn_ray.cli as c; print(c.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
