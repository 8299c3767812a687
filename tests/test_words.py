"""Names say what they hold, in the field's words; the worst of the old dialect are banned."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "schn_ray"
BANNED = {
    "alike",
    "asked",
    "beside",
    "everyones",
    "found",
    "here",
    "kept",
    "place",
    "places",
    "said",
    "several",
    "some",
    "there",
    "wanted",
    "whoever",
}


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_no_name_of_the_old_dialect() -> None:
    bad = [
        f"{file.relative_to(PACKAGE)}:{line} {name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for line, name in bound_names(ast.parse(file.read_text()))
        if BANNED & set(name.lower().strip("_").split("_"))
    ]
    assert not bad, "\n".join(bad)


def test_public_names_are_defined_once() -> None:
    places: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public:
                places.setdefault(node.name, set()).add(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def _arguments(node: ast.FunctionDef) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in arguments if a.arg not in ("self", "cls")]


def test_public_functions_say_what_their_arguments_are() -> None:
    silent = [
        f"{file.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.relative_to(PACKAGE).parts[0] != "cli"  # there, each option has its help
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if _arguments(node) and "Args:\n" not in (ast.get_docstring(node) or "")
    ]
    assert not silent, "\n".join(silent)
