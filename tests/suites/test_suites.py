"""Suites: every cell trained once, whatever interrupts it, and an honest table of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from support.kills import Killed

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.results import read_figures
from schn_ray.suites import cells, table
from schn_ray.suites.cells import Cell, cells_of
from schn_ray.suites.suite import SHIPPED, read_suite, suite_names
from schn_ray.suites.table import Block, CellFigures, ranking, suite_table

FEW = {"methods": ["lsh", "csq"], "bits": [12], "seeds": [0], "settings.schedule.iterations": 1}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("suite") / "quick"
    schn_ray.benchmark("quick", out, settings=FEW)
    return out


def figures(out: Path) -> dict[str, float]:
    rows = pq.read_table(out / "results.parquet").to_pylist()
    return {f"{row['method']}-{row['bits']}-{row['seed']}": row["map"] for row in rows}


def test_a_table_a_file_and_a_page(quick: Path) -> None:
    result = schn_ray.benchmark("quick", quick, settings=FEW)
    (block,) = result.table.blocks
    assert [line.method for line in block.lines] == ["csq", "lsh"]
    assert block.lines[0].map.mean > block.lines[1].map.mean + 0.1
    assert [line.tied for line in block.lines] == [True, False]
    assert set(block.unquantised) == {"cosine", "classifier"}
    assert (
        figures(quick)["csq-12-0"] == read_figures(quick / "cells/digits/csq-12-0-evaluation").map
    )
    page = (quick / "index.html").read_text()
    assert "digits, 12 bits: csq is best" in page
    figures_and_run = ("csq-12-0-evaluation/metrics.json", "csq-12-0/manifest.json")
    for link in ("results.parquet", *(f"cells/digits/{file}" for file in figures_and_run)):
        assert f'href="{link}"' in page
        assert (quick / link).is_file()
    assert json.dumps(result.to_json())
    assert "1= csq" in result.text()
    assert "2  lsh" in result.text()


@pytest.mark.slow
def test_what_has_ended_is_not_trained_again_and_what_is_new_is(
    quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    really = cells.train_locally

    def train(config: Any, store: str, run: str, **given: Any) -> Any:
        manifest = really(config, store, run, **given)
        trained.append(Path(run).name)
        return manifest

    monkeypatch.setattr(cells, "train_locally", train)
    before = figures(quick)
    schn_ray.benchmark("quick", quick, settings=FEW)
    assert trained == []
    schn_ray.benchmark("quick", quick, settings=FEW | {"methods": ["lsh", "csq", "itq"]})
    assert trained == ["itq-12-0"]
    assert {name: score for name, score in figures(quick).items() if "itq" not in name} == before


@pytest.mark.slow
def test_killed_and_moved_it_goes_on_to_the_same_table(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = cells.evaluate_run

    def dies_at_the_second(run: str, *given: Any, **more: Any) -> Any:
        if "csq" in run:
            raise Killed
        return really(run, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(cells, "evaluate_run", dies_at_the_second)
        with pytest.raises(Killed):
            schn_ray.benchmark("quick", tmp_path / "suite", settings=FEW)
    assert set(figures(tmp_path / "suite")) == {"lsh-12-0"}  # an interrupted suite has a table
    (tmp_path / "suite").rename(moved := tmp_path / "moved")
    schn_ray.benchmark("quick", moved, settings=FEW)
    expected = figures(quick)
    assert figures(moved) == {name: expected[name] for name in ("lsh-12-0", "csq-12-0")}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A suite of one method on 60 vectors of two classes."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(60, 8)).astype(np.float32))
    lines = ["a;b\n" if row % 3 else "b\n" for row in range(60)]
    (tmp_path / "x.labels.txt").write_text("".join(lines))
    prepare = {"train_share": 0.5, "validation_share": 0, "query_share": 0.2}
    suite = {
        "data": {"two": {"source": str(tmp_path / "x.npy"), "prepare": prepare}},
        "methods": ["lsh"],
        "bits": [8],
        "seeds": [0],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    return tmp_path / "suite.yaml"


def test_a_suite_that_was_moved_goes_on_without_the_source(two: Path, tmp_path: Path) -> None:
    schn_ray.benchmark(two, tmp_path / "out")
    before = figures(tmp_path / "out")
    (tmp_path / "out").rename(moved := tmp_path / "moved")
    (tmp_path / "x.npy").unlink()
    schn_ray.benchmark(two, moved, settings={"seeds": [0, 1]})
    assert before.items() <= figures(moved).items()
    assert set(figures(moved)) == {"lsh-8-0", "lsh-8-1"}
    with pytest.raises(
        SchnRayError, match=r"data/two/store was .*\n *config\.train_share: 0\.5 there"
    ):
        schn_ray.benchmark(two, moved, settings={"data.two.prepare.train_share": 0.4})
    with pytest.raises(SchnRayError, match=r"x\.npy: no such file"):
        schn_ray.benchmark(two, moved, data={"two": tmp_path / "x.npy"})


@pytest.mark.slow
def test_a_method_that_refuses_the_data_is_named_and_the_others_go_on(
    two: Path, tmp_path: Path
) -> None:
    result = schn_ray.benchmark(
        two, tmp_path / "out", settings={"methods": ["mdsh", "lsh"], "seeds": [0, 1]}
    )
    ((cells, reason),) = result.table.refused
    assert cells == "two, mdsh, 8 bits, seed 0, and 1 more"
    assert "label" in reason
    assert [line.method for line in result.table.blocks[0].lines] == ["lsh"]
    assert "mdsh, 8 bits, seed 0, and 1 more: " in (tmp_path / "out" / "index.html").read_text()


def test_damaged_figures_are_named_and_the_others_have_their_table(quick: Path) -> None:
    file = quick / "cells/digits/lsh-12-0-evaluation/metrics.json"
    text = file.read_text()
    file.write_text(text.replace('"map": 0.', '"map": 0.9', 1))
    try:
        result = schn_ray.benchmark("quick", quick, settings=FEW)
        ((cell, reason),) = result.table.refused
        assert cell == "digits, lsh, 12 bits, seed 0"
        assert f"remove {file.parent}, and the same command makes it again" in reason
        assert set(figures(quick)) == {"csq-12-0"}
    finally:
        file.write_text(text)


@pytest.mark.parametrize("work", ["train_locally", "evaluate_run"])
def test_whatever_a_method_raises_the_others_go_on(
    work: str, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = getattr(cells, work)

    def fails(*given: Any, **more: Any) -> Any:
        if "itq" in str(given):
            raise MemoryError("20 GiB")
        return really(*given, **more)

    monkeypatch.setattr(cells, work, fails)
    result = schn_ray.benchmark(two, tmp_path / "out", settings={"methods": ["itq", "lsh"]})
    assert result.table.refused == (("two, itq, 8 bits, seed 0", "MemoryError: 20 GiB"),)
    assert set(figures(tmp_path / "out")) == {"lsh-8-0"}
    monkeypatch.undo()
    schn_ray.benchmark(two, tmp_path / "out", settings={"methods": ["itq", "lsh"]})
    assert set(figures(tmp_path / "out")) == {"itq-8-0", "lsh-8-0"}  # it is tried again


def test_data_without_labels_are_named(two: Path, tmp_path: Path) -> None:
    (tmp_path / "x.labels.txt").unlink()
    result = schn_ray.benchmark(two, tmp_path / "out")
    ((data, reason),) = result.table.refused
    assert (data, result.table.blocks) == ("two", ())
    assert "no mAP without labels" in reason


def test_data_that_changed_and_another_s_directory_are_refused(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("mine")
    with pytest.raises(SchnRayError, match="mine holds something that schn-ray did not make"):
        schn_ray.benchmark(two, tmp_path / "mine")
    schn_ray.benchmark(two, tmp_path / "out")
    X = np.load(tmp_path / "x.npy")
    assert "has changed since" not in capsys.readouterr().err
    np.save(tmp_path / "x.npy", X[::-1])  # of the same size
    schn_ray.benchmark(two, tmp_path / "out")
    assert f"{tmp_path / 'x.npy'} has changed since" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", X[:-1])
    labels = (tmp_path / "x.labels.txt").read_text().splitlines(keepends=True)
    (tmp_path / "x.labels.txt").write_text("".join(labels[:-1]))
    with pytest.raises(SchnRayError, match=r"npy held other files\. .* name another directory"):
        schn_ray.benchmark(two, tmp_path / "out")


@pytest.mark.parametrize(
    ("suite", "settings", "message"),
    [
        ("quik", {}, "no suite 'quik'; did you mean 'quick'?"),
        (
            "frozen",
            {},
            "needs the place of a data set, or of several:\n  --data cifar10=PATH: CIFAR-10",
        ),
        ("quick", {"methods": ["csp"]}, "no method 'csp'; did you mean 'csq'?"),
        ("quick", {"bits": []}, "suite quick has no bits"),
        ("quick", {"method": ["csq"]}, "method"),
        ("quick", {"methods": ["csq", "csq"]}, "methods more than once: csq"),
        ("quick", {"seeds": [0, 1, 0]}, "seeds more than once: 0"),
        ("quick", {"seeds": [-1]}, "seed"),
        ("quick", {"preset": "frozn"}, "did you mean 'frozen'?"),
        ("quick", {"settings.schedul.epochs": 1}, "unknown setting 'schedul'"),
        ("quick", {"data.digits.prepare.protocol": "randm"}, "data.digits.prepare: .*'randm'"),
        ("quick", {"data.digits.prepare.train_shar": 1}, "data.digits.prepare: .*'train_share'?"),
        ("quick", {"data.digits.embed.dtyp": 1}, "data.digits.embed: .*'dtype'?"),
        ("quick", {"data.digits.source": "nowhere"}, "data.digits: nowhere: no such file"),
        ("quick", {"evaluate.dept": 1}, "evaluate: unknown setting 'dept'"),
    ],
)
def test_a_suite_that_cannot_run_is_refused_before_any_work(
    suite: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SchnRayError, match=message.replace("?", r"\?")):
        schn_ray.benchmark(suite, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_data_sets_without_a_place_are_left_out() -> None:
    suite = read_suite("frozen", {"mosaics": "mosaics.parquet"})
    assert suite.left_out == ["cifar10"]
    assert {cell.data for cell in cells_of(suite)} == {"mosaics"}


@pytest.mark.slow
def test_two_splits_of_the_same_images_share_source_and_features(tmp_path: Path) -> None:
    suite = yaml.safe_load((SHIPPED / "quick.yaml").read_text())
    suite["data"]["unseen"] = {
        "images_of": "digits",
        "prepare": {"protocol": "unseen-classes", "validation_share": 0.05, "query_share": 0.2},
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(suite))
    result = schn_ray.benchmark(tmp_path / "two.yaml", tmp_path / "out", settings=FEW)
    assert [block.data for block in result.table.blocks] == ["digits", "unseen"]
    assert [block.protocol for block in result.table.blocks] == ["random", "unseen-classes"]
    assert all(len(block.lines) == 2 for block in result.table.blocks)
    assert not (tmp_path / "out/data/unseen/features").exists()


@pytest.mark.parametrize("other", ["cifar", "b"])
def test_images_are_those_of_a_data_set_that_has_its_own(other: str, tmp_path: Path) -> None:
    data = {"b": {"images_of": "a"}, "a": {"source": "digits"}, "c": {"images_of": other}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"data": data}))
    with pytest.raises(SchnRayError, match=f"c has the images of '{other}'"):
        read_suite(str(tmp_path / "suite.yaml"))


def test_a_place_is_that_of_a_data_set_of_the_suite(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="has no data set 'cifar'"):
        schn_ray.benchmark("frozen", tmp_path / "out", data={"cifar": "somewhere"})


@pytest.mark.parametrize("name", suite_names())
def test_the_settings_of_each_suite_are_those_of_every_method_in_it(name: str) -> None:
    data = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())["data"]
    first = next(iter(data))
    suite = read_suite(name, {first: data[first].get("source", "a place")})
    for cell in cells_of(suite)[: len(suite.method_names)]:  # one of each method
        config = cells.cell_config(cell, suite, {})
        assert (config.bits, config.seed, config.method.name) == (cell.bits, cell.seed, cell.method)


def measured(method: str, precision: list[float]) -> Any:
    cell = CellFigures(
        Cell(0, "d", method, 8, 0), "", float(np.mean(precision)), None, {}, 1.0, 1.0
    )
    figures: Any = None
    return table._Measured(cell, figures, np.array(precision))


def test_ties_with_the_best_are_those_that_queries_do_not_tell_apart() -> None:
    best = np.linspace(0.5, 0.9, 40)
    close = best - 0.01 + np.where(np.arange(40) % 2, 0.1, -0.1)  # better for every other query
    behind = best - 0.01  # worse for each query, however little
    lines = {
        name: table._line(name, [measured(name, list(values))], values, best, 1)
        for name, values in (("best", best), ("close", close), ("behind", behind))
    }
    assert {name: line.tied for name, line in lines.items()} == {
        "best": True,
        "close": True,
        "behind": False,
    }
    assert lines["best"].behind is None
    gap = lines["behind"].behind
    assert gap is not None
    assert gap.mean == pytest.approx(0.01)


def test_a_group_begins_where_a_method_is_told_apart_from_the_first_of_the_one_before() -> None:
    best = np.linspace(0.5, 0.9, 40)
    wave = np.where(np.arange(40) % 2, 0.1, -0.1)
    precision = [best, best - 0.005 + wave, best - 0.01, best - 0.015, best - 0.02 + wave]
    assert table._groups(precision) == [1, 1, 2, 3, 3]


def test_ranks_are_means_by_data_set_of_the_methods_that_are_everywhere() -> None:
    def block(data: str, bits: int, *methods: str) -> Any:
        values = np.ones(3)
        lines = tuple(
            table._line(name, [measured(name, list(values))], values, values, 1) for name in methods
        )
        return Block(data, bits, 3, 3, "", lines, {})

    blocks = [block("x", 8, "a", "b", "c"), block("x", 16, "b", "a"), block("y", 8, "b", "a")]
    first, second = ranking(blocks)
    assert (first.method, first.of_data, first.of_block) == ("b", {"x": 1.5, "y": 1.0}, (2, 1, 1))
    assert (second.method, second.mean) == ("a", pytest.approx(5 / 3))


def test_a_table_of_nothing_says_so(tmp_path: Path) -> None:
    assert suite_table(tmp_path, []).blocks == ()
