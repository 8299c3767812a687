"""An environment of Python that has a wheel, what it requires, and nothing else.

Files are links to those of this environment, so nothing is downloaded.
"""

import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement


def empty_environment(folder: Path) -> Path:
    """Make an environment without any package; return its folder of packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    return packages


def install(wheel: Path, packages: Path) -> int:
    """Install a wheel and all that it requires without extras; return their bytes, uncompiled."""
    with ZipFile(wheel) as files:
        files.extractall(packages)
        (name,) = (n for n in files.namelist() if n.endswith(".dist-info/METADATA"))
        required = message_from_bytes(files.read(name)).get_all("Requires-Dist", [])
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    return size + install_packages(required, packages)


def install_packages(required: list[str], packages: Path) -> int:
    """Install packages and all that they require; return their bytes, uncompiled."""
    size = 0
    for package in _required(required):
        for file in package.files or ():
            source, target = Path(str(package.locate_file(file))), packages / file
            inside = target.resolve().is_relative_to(packages.resolve())  # commands are not
            if inside and source.is_file() and "__pycache__" not in source.parts:
                size += source.stat().st_size
                _link(source, target)
                if source.suffix == ".py":  # compiled already
                    _link(*(Path(cache_from_source(str(path))) for path in (source, target)))
    return size


def _link(source: Path, target: Path) -> None:
    if source.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def _required(requirements: list[str]) -> Iterator[Distribution]:
    """Yield the distributions that requirements name, and theirs in turn, each once."""
    waiting, seen = [(text, "") for text in requirements], set()
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        for named in {"", *requirement.extras}:
            if (key := (requirement.name, named)) not in seen:
                seen.add(key)
                package = distribution(requirement.name)
                waiting += [(inner, named) for inner in package.requires or ()]
                if not named:
                    yield package
