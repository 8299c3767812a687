"""The walls of the architecture: which module may import which."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "schn_ray"

# each may import those before it, and its own line
LAYERS = [
    {"__init__", "errors", "presets", "search_spaces"},
    {"config", "progress", "code_files", "locks", "memory"},
    {"manifest", "labels", "distributed", "images", "precision", "board", "unseen"},
    {"places"},
    {"centres", "losses", "networks", "histograms", "batches", "versions"},
    {"codes", "metrics", "graded", "first_hit", "first_rows", "bootstrap"},
    {"summary", "legacy", "reid"},
    {"sources"},
    {"protocols", "split_checks", "method", "hasher", "index"},
    {"schn", "search", "check", "parts", "audit", "traffic", "duplicates"},
    {"loop", "plan", "repeated", "serve"},
    {"store"},
    {"galleries", "counting"},
    {"encode"},
    {"training"},
    {"evaluation"},
    {"compare", "tuning"},
    {"report", "export"},
    {"cluster"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def module_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_import_runs_upwards() -> None:
    wrong = []
    for file in files():
        here = module_of(file)
        for name in imports(file):
            parts = name.split(".")
            ours = parts[0] == "schn_ray" and len(parts) > 1 and parts[1] in LEVEL
            if ours and LEVEL[parts[1]] > LEVEL[here]:
                wrong.append(f"{here} imports {parts[1]}")
    assert not wrong


def test_every_module_has_its_place() -> None:
    assert {module_of(file) for file in files()} <= set(LEVEL)


def test_only_cluster_imports_ray() -> None:
    users = {module_of(f) for f in files() if any(n.split(".")[0] == "ray" for n in imports(f))}
    assert users == {"cluster"}


def test_only_distributed_imports_torch_distributed() -> None:
    users = {
        module_of(file)
        for file in files()
        if any(n.startswith("torch.distributed") for n in imports(file))
    }
    assert users == {"distributed"}


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


def test_the_core_runs_without_ray() -> None:
    modules = [f.stem for f in PACKAGE.glob("*.py") if f.stem not in ("cli", "__main__")]
    code = "; ".join(f"import schn_ray.{m}" for m in modules if m != "__init__")
    assert "ray" not in modules_after(code + "; import schn_ray.report.run")


def test_workers_that_count_need_no_torch() -> None:
    assert not modules_after("import schn_ray.counting") & {"torch", "torchvision", "sklearn"}
