"""The walls of the architecture: rooms, and which may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "schn_ray"

# each may import itself and those before it
ROOMS = [
    "core",
    "data",
    "models",
    "methods",
    "retrieval",
    "evaluation",
    "training",
    "tuning",
    "suites",
    "report",
    "cluster",
    "cli",
]


def files(room: str = "") -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def dotted(file: Path) -> str:
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def test_the_package_is_its_rooms() -> None:
    names = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert names == {*ROOMS, "__init__.py", "__main__.py", "py.typed"}


def test_no_room_imports_one_above_it() -> None:
    upwards = [
        f"{dotted(file)} imports {name}"
        for level, room in enumerate(ROOMS)
        for file in files(room)
        for name in imports(file)
        if name.startswith("schn_ray.") and name.split(".")[1] in ROOMS[level + 1 :]
    ]
    assert not upwards


def test_no_modules_import_each_other() -> None:
    modules = {dotted(file): imports(file) for file in files()}
    left = {name: {n for n in seen if n in modules} - {name} for name, seen in modules.items()}
    while leaves := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left


def test_only_cluster_imports_ray() -> None:
    users = {
        file.relative_to(PACKAGE).parts[0]
        for file in files()
        if any(name.split(".")[0] == "ray" for name in imports(file))
    }
    assert users == {"cluster"}


def test_only_workers_imports_torch_distributed() -> None:
    users = {
        dotted(file)
        for file in files()
        if any(name.startswith("torch.distributed") for name in imports(file))
    }
    assert users == {"schn_ray.core.workers"}


def modules_after(code: str) -> set[str]:
    code += "; import sys; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in run.stdout.splitlines()[-1].split()}


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after(
        "import sys; sys.argv = ['schn-ray', '--help']\n"
        "from schn_ray import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "pass"
    )
    heavy = {"torch", "torchvision", "ray", "pyarrow", "faiss", "numpy", "matplotlib", "pydantic"}
    assert not loaded & heavy


def test_a_search_imports_nothing_heavy() -> None:
    loaded = modules_after("import schn_ray.retrieval.search")
    assert not loaded & {"torch", "torchvision", "ray", "pandas", "matplotlib", "sklearn"}


@pytest.mark.slow
def test_the_core_runs_without_ray() -> None:
    below = [file for room in ROOMS[: ROOMS.index("cluster")] for file in files(room)]
    assert len(below) > 100
    assert "ray" not in modules_after("; ".join(f"import {dotted(file)}" for file in below))


def test_workers_that_count_need_no_torch() -> None:
    loaded = modules_after("import schn_ray.evaluation.metrics.gallery_histograms")
    assert not loaded & {"torch", "torchvision", "sklearn"}
