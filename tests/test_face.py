"""What ``import schn_ray`` offers: every verb, lazily, with the names of the command's options."""

import ast
import inspect
import json
import os
import pickle
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.image_files import write_tree
from support.users import TINY, Run
from typer.main import get_command

import schn_ray
from schn_ray.cli import app
from schn_ray.cli.verbs.arguments import location_of, setting_lines, worker_range
from schn_ray.cli.verbs.results import SearchResults
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.search import Result

ONE = {"schedule.iterations": 1, "schedule.epochs": 1}
SETTINGS: dict[str, Any] = dict(setting.split("=") for setting in TINY)
SETTINGS = {name: int(value) for name, value in SETTINGS.items()} | ONE

# the command's name -> the functions that do it, where these are not one of the same name
FUNCTIONS = {
    "index": ("build_index", "change_index", "verify_index"),
    "map": ("map_codes",),
    "methods": ("list_methods",),
    "report": ("write_report",),
}
ONLY_COMMANDS = {"demo", "submit"}  # made of other commands
OF_THE_PRINTING = {"json", "markdown", "verbose", "paths", "help"}


def functions_of(command: str) -> list[Callable[..., Any]]:
    return [getattr(schn_ray, name) for name in FUNCTIONS.get(command, (command,))]


def options_of(command: str) -> set[str]:
    """The long names of the options, and the arguments."""
    verb = get_command(app).commands[command]  # type: ignore[attr-defined]
    names = {max(param.opts, key=len).lstrip("-") for param in verb.params}
    return {name.replace("-", "_") for name in names} - OF_THE_PRINTING


def commands() -> list[str]:
    return sorted(set(get_command(app).commands) - ONLY_COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", commands())
def test_functions_have_the_options_of_the_command(command: str) -> None:
    # keywords of Python; one at a time
    renamed = {"set": "settings", "with": "vectors", "from": "earlier", "constraint": "constraints"}
    options = {renamed.get(name, name) for name in options_of(command)}
    if command == "index":
        # --verify and --info: verify_index(path) and open_index(path).info()
        options = options - {"verify", "info", "path"} | {"codes", "index", "path"}
    signatures = [inspect.signature(function).parameters for function in functions_of(command)]
    assert set().union(*signatures) == options


@pytest.mark.parametrize("command", commands())
def test_defaults_are_those_of_the_command(command: str) -> None:
    verb = get_command(app).commands[command]  # type: ignore[attr-defined]
    for function in functions_of(command):
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "workers":  # without them, in this process
                assert parameter.default is None
                continue
            given = [p for p in verb.params if name in (p.name, max(p.opts, key=len).lstrip("-"))]
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            for param in given:
                assert (default or None) == (param.default or None), name


@pytest.mark.parametrize("name", sorted(set(schn_ray.__all__) - {"SchnRayError"}))
def test_each_function_has_a_page_of_help(name: str) -> None:
    text = inspect.getdoc(getattr(schn_ray, name)) or ""
    assert "Raises:\n" in text
    if getattr(schn_ray, name).__module__.startswith("schn_ray.cli"):
        assert "Args:\n" in text
        assert "Example:\n" in text
        for parameter in inspect.signature(getattr(schn_ray, name)).parameters:
            assert re.search(rf"^    {parameter}: ", text, re.MULTILINE), parameter


def in_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


def test_importing_it_imports_nothing_heavy() -> None:
    count = "len([name for name in sys.modules if name not in before])"
    code = f"import sys; before = set(sys.modules); import schn_ray; print({count}, *sys.modules)"
    number, *modules = in_python(code).split()
    assert int(number) < 10  # itself, and what typing is made of
    heavy = {"torch", "ray", "numpy", "pyarrow", "pydantic", "typer", "yaml", "PIL", "faiss"}
    assert not heavy & {name.split(".")[0] for name in modules}


def test_tab_shows_what_there_is_to_call() -> None:
    assert dir(schn_ray) == sorted(dir(schn_ray))
    assert set(dir(schn_ray)) == {*schn_ray.__all__, "__version__"}
    assert sorted(schn_ray._MODULE_OF) == schn_ray.__all__
    for name in schn_ray.__all__:
        assert getattr(schn_ray, name).__name__ == name


def test_a_checker_of_types_sees_the_same_names() -> None:
    (block,) = [n for n in ast.parse(inspect.getsource(schn_ray)).body if isinstance(n, ast.If)][:1]
    imported = {
        (str(node.module).removeprefix("schn_ray."), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {(module, name) for name, module in schn_ray._MODULE_OF.items()}


@pytest.mark.parametrize(
    ("name", "hint"), [("report", "write_report"), ("index", "build_index"), ("trian", "")]
)
def test_names_that_are_not_there(name: str, hint: str) -> None:
    out = in_python(
        f"import schn_ray\ntry: schn_ray.{name}\nexcept AttributeError as error: print(error)"
    )
    assert f"no '{name}'" in out
    assert hint in out


def test_help_reads_like_a_first_page() -> None:
    page = pydoc.render_doc(schn_ray, renderer=pydoc.plaintext)
    first = page.splitlines()[:40]
    assert any('schn_ray.prepare("photos", "store")' in line for line in first)
    assert "Train a hashing model." in page
    for name in schn_ray.__all__:
        assert f"{name}(" in page


@pytest.mark.parametrize("verb", ["search", "train", "evaluate", "duplicates", "submit"])
def test_help_calls_values_as_manuals_do(schn_ray: Run, verb: str) -> None:
    page = schn_ray(verb, "-h").out
    assert "<" not in page
    assert {"search": "-k N", "train": "--out TEXT", "evaluate": "encoded|learned|both"}.get(
        verb, "Options:"
    ) in page


def test_settings_come_as_a_mapping_or_as_lines() -> None:
    assert setting_lines(["bits=16"], {"seed": None}) == ("bits=16",)
    nested = setting_lines({"loss": {"cycle": 0}, "source.kind": "list", "x": None})
    assert nested == ('loss={"cycle": 0}', 'source.kind="list"')
    assert setting_lines({"a": [1, 2], "b": 1e-5}) == ("a=[1, 2]", "b=1e-05")


def test_numbers_of_workers() -> None:
    assert [worker_range(w) for w in (3, "3", "2:8", (2, 8), "all")] == [
        (3, 3),
        (3, 3),
        (2, 8),
        (2, 8),
        None,
    ]
    for wrong in (0, -1, "many", (8, 2)):
        with pytest.raises(SchnRayError, match="such as 2:8"):
            worker_range(wrong)


def test_paths_are_as_the_user_wrote_them() -> None:
    assert location_of("store") == "store"
    assert location_of(Path("a/store")) == "a/store"
    assert location_of(Path("s3://bucket/store")) == "s3://bucket/store"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and, by the functions, all that is made of them."""
    folder = tmp_path_factory.mktemp("face")
    write_tree(folder / "photos", {"cat": 12, "dog": 12})
    store = schn_ray.prepare(folder / "photos", folder / "store")
    run = schn_ray.train(store, folder / "run", preset="digits", settings=SETTINGS)
    codes = schn_ray.encode(folder / "photos", run, folder / "codes")
    schn_ray.build_index(codes, folder / "index")
    schn_ray.evaluate(run, store)
    return folder


def test_outputs_are_paths_that_know_what_they_hold(made: Path) -> None:
    again = schn_ray.prepare(made / "photos", made / "store")
    assert again == str(made / "store")
    assert (again.kind, again.counts["rows"]) == ("store", 24)
    assert "is finished already" in again.note
    assert repr(again).startswith(f"{again}: store, finished\n  rows")
    assert "<td>24</td>" in again._repr_html_()
    copy = pickle.loads(pickle.dumps(again))
    assert (copy, copy.counts, type(copy)) == (again, again.counts, type(again))
    assert len(schn_ray.open_store(again)) == 24
    assert os.path.join(again, "manifest.json") == f"{made}/store/manifest.json"


def test_finished_work_is_known_without_torch(made: Path) -> None:
    made_again = "schn_ray.encode(root + '/photos', root + '/run', root + '/codes')"
    code = (
        f"import schn_ray, sys; root = {str(made)!r}; settings = {SETTINGS!r}\n"
        "run = schn_ray.train(root + '/store', root + '/run', preset='digits', settings=settings)\n"
        f"codes = {made_again}\n"
        "print(run.note, codes.note, {'torch', 'ray'} & set(sys.modules))"
    )
    printed = in_python(code)
    assert printed.count("finished already") == 2
    assert printed.endswith("set()\n")


def test_opened_objects_are_accepted(made: Path) -> None:
    store, index = schn_ray.open_store(made / "store"), schn_ray.open_index(made / "index")
    assert schn_ray.evaluate(made / "run", store).note  # it is the evaluation that exists
    results = schn_ray.search(index, id=["cat/003.png"], k=2)
    assert len(results[0].hits) == 2
    assert repr(results).splitlines()[0] == "cat/003.png"
    assert "<pre>cat/003.png" in results._repr_html_()
    assert schn_ray.duplicates(index, made / "groups.parquet").counts.rows == 24


def test_a_function_and_its_command_give_the_same(made: Path, schn_ray: Run) -> None:
    import schn_ray as face

    results = face.search(made / "index", [made / "photos/dog/001.png"], model=made / "run", k=3)
    command = ("search", made / "index", made / "photos/dog/001.png", "--model", made / "run")
    answer = schn_ray(*command, "-k", 3)
    assert (answer.code, answer.out) == (0, f"{results!r}\n")
    answer = schn_ray(*command, "-k", 3, "--json")
    assert json.loads(answer.out) == json.loads(json.dumps(results.to_json()))
    assert schn_ray("check", made / "photos").out == f"{face.check(made / 'photos')!r}\n"
    compared = schn_ray("compare", made / "run")
    assert compared.out == f"{face.compare([made / 'run'])!r}\n"


def test_queries_are_images_in_any_form_and_a_string_is_one(made: Path) -> None:
    photo = made / "photos/dog/001.png"
    expected = schn_ray.search(made / "index", [photo], model=made / "run", k=3)
    assert schn_ray.search(made / "index", str(photo), model=made / "run", k=3) == expected
    opened = [Image.open(photo), photo.read_bytes(), np.asarray(Image.open(photo).convert("RGB"))]
    results = schn_ray.search(made / "index", opened, model=made / "run", k=3)
    assert results[1].hits == expected[0].hits  # the identical image is first, by its bytes
    distances = [[hit.distance for hit in result.hits] for result in results]
    assert distances == [[hit.distance for hit in expected[0].hits]] * 3
    assert [(result.query, result.uri) for result in results][1] == ("image 1", "")
    (one,) = schn_ray.search(made / "index", id="cat/003.png", k=2)
    assert one.query == "cat/003.png"
    assert schn_ray.compare(made / "run").text() == schn_ray.compare([made / "run"]).text()


def test_results_are_tables(made: Path, tmp_path: Path) -> None:
    photo, run = made / "photos/dog/001.png", made / "run"
    for rescore in (None, "query"):
        results = schn_ray.search(made / "index", [photo], model=run, k=3, rescore=rescore)
        expected = [
            {"query": str(photo), "rank": rank, **hit}
            for rank, hit in enumerate(results.to_json()[0]["hits"], 1)
        ]
        assert results.to_arrow().to_pylist() == expected
        assert results.to_pandas().to_dict("records") == expected
    codes = schn_ray.encode(made / "photos", run, made / "codes")
    assert codes.to_arrow().num_rows == 24
    index = schn_ray.open_index(made / "index")
    assert codes.to_pandas()["code"].nunique() == index.unique_codes
    matches = schn_ray.search(made / "index", queries=codes, out=tmp_path / "matches", k=2)
    assert set(matches.to_pandas()["query"]) == set(codes.to_pandas()["id"])
    evaluated = schn_ray.evaluate(run, made / "store")
    assert evaluated.to_pandas()["average_precision"].mean() == evaluated.figures.map
    groups = schn_ray.duplicates(made / "index", made / "groups.parquet")
    assert groups.to_pandas()["group"].nunique() == groups.counts.groups
    table = schn_ray.compare([run]).to_pandas().set_index("figure")
    assert table["mean"]["map"] == evaluated.figures.map


def test_no_results_are_an_empty_table() -> None:
    columns = SearchResults([Result("q", "", ())]).to_pandas().columns
    assert {"query", "rank", "id", "uri", "distance"} <= set(columns)


def test_the_report_of_one_run(made: Path) -> None:
    page = schn_ray.write_report(made / "run", made / "report.html")
    assert page.read_text().startswith("<!doctype html>")


def test_an_index_is_changed(made: Path, tmp_path: Path) -> None:
    index = schn_ray.build_index(made / "codes", tmp_path / "index")
    assert schn_ray.change_index(index, remove=["cat/001.png"]).counts["rows"] == 23
    (tmp_path / "ids").write_text("cat/002.png\n\ncat/003.png\n")
    assert schn_ray.change_index(index, remove=tmp_path / "ids").counts["rows"] == 21
    with pytest.raises(SchnRayError, match="cat/001"):
        schn_ray.change_index(index, remove=["cat/001.png"])


def test_resources_are_of_workers(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="workers"):
        schn_ray.train(made / "store", tmp_path / "run", preset="digits", cpus=2)
    with pytest.raises(SchnRayError, match="all"):
        schn_ray.train(made / "store", tmp_path / "run", preset="digits", workers="all")
    assert not (tmp_path / "run").exists()


def test_workers_without_ray_are_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[ray\]'"):
        schn_ray.prepare(made / "photos", tmp_path / "store", workers=2)
    with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[ray\]'"):
        schn_ray.doctor()
    assert not (tmp_path / "store").exists()


def test_a_library_that_is_missing_is_named_with_its_extra(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "schn_ray.report.runs", None)
    with pytest.raises(ModuleNotFoundError):  # none of any extra
        schn_ray.write_report(made / "run", tmp_path / "r.html")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SchnRayError, match=r"needs matplotlib.*'schn-ray\[report\]'"):
        schn_ray.write_report(made / "run", tmp_path / "r.html")


def test_a_misspelt_setting_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="did you mean 'bits'"):
        schn_ray.train(made / "store", tmp_path / "run", settings={"bist": 16})
