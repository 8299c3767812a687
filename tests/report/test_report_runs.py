"""What an evaluation adds to a report, several runs in one, and figures as files."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.evaluations import FIGURES, figures

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.compare import Comparison, Gap, MethodFigures, Spread
from schn_ray.evaluation.figures import GalleryFigures
from schn_ray.evaluation.metrics.bootstrap import Difference, Interval
from schn_ray.evaluation.plot_data import PlotData
from schn_ray.report import draw, tables
from schn_ray.report.charts import Chart
from schn_ray.report.contents import Example, Picture, ReportData
from schn_ray.report.diagrams import (
    BitBars,
    Diagram,
    Heatmap,
    Scatter,
    curves_at_ranks,
    dead_bits,
    map_by_bits,
)
from schn_ray.report.figure_files import write_figures
from schn_ray.report.one_run import diagrams_of
from schn_ray.report.overview import overview, short_names
from schn_ray.report.page import write_reports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIDEWAYS = "document.documentElement.scrollWidth - innerWidth"
UNFOLD = "document.querySelectorAll('details').forEach((d) => (d.open = true))"
CLASSES = ["cat", "dog", "owl"]
CURVE = [{"threshold": d, "precision": 1 - d / 20, "recall": d / 12, "empty": 0} for d in range(13)]


def plots(classes: int = 3) -> PlotData:
    names = (CLASSES * 20)[:classes] if classes <= 3 else [f"class {i}" for i in range(classes)]
    values = {
        "at": [{"k": k, "precision": 1 / k, "recall": k / 100} for k in (1, 10, 100)],
        "distances": {"similar": [5, 3, 2, 0], "dissimilar": [0, 0, 4, 4]},
        "bits": {"balance": [0.5, 1.0], "correlation": [[1.0, None], [None, None]]},
        "confusion": {
            "classes": names,
            "share": [[1.0 if i == j else 0.0 for j in range(classes)] for i in range(classes)],
            "neighbours": 10,
        },
        "map": {
            "x": [float(i) for i in range(3 * classes)],
            "y": [0.0] * 3 * classes,
            "class": [name for name in names for _ in range(3)],
            "rows": [1, 4, 9] * classes,
        },
    }
    return PlotData.model_validate(values)


METRICS: dict[str, Any] = FIGURES | {
    "gallery_codes": "encoded",
    "bits": 12,
    "queries": 60,
    "gallery": 500,
    "map": 0.75,
    "map_best": 0.8,
    "map_worst": 0.7,
    "map_interval": {"mean": 0.75, "low": 0.71, "high": 0.79, "queries": 60, "level": 0.95},
    "radius": 2,
    "precision_within_radius": 0.7,
    "mrr": 0.9,
    "ndcg_at": {"10": 0.85},
    "legacy": {"stable": 0.77},
    "pr_curve": CURVE,
    "audit": {"findings": ["3 gallery rows repeat an image"], "spoiling": [], "rows": {}},
    "by_class": [
        {"class": "cat", "queries": 30, "map": 0.9, "low": 0.8, "high": 1.0},
        {"class": "dog", "queries": 30, "map": 0.6, "low": 0.5, "high": 0.7},
        {"class": "owl", "queries": 1, "map": None, "low": None, "high": None},
    ],
    "side_by_side": [
        {k: FIGURES[k] for k in GalleryFigures.model_fields}
        | {"gallery_codes": "learned", "said": "learned codes", "gallery": 100, "map": 0.99}
    ],
    "controls": {
        "queries": 60,
        "gallery": 500,
        "train_rows": 400,
        **{
            name: {"mean": score, "low": score - 0.02, "high": score + 0.02, "queries": 60}
            for name, score in (
                ("model", 0.75),
                ("classifier", 0.6),
                ("cosine", 0.7),
                ("random", 0.3),
            )
        },
        "model_less_classifier": {
            "interval": {"mean": 0.15, "low": 0.1, "high": 0.2, "queries": 60},
            "p_value": 0.001,
        },
    },
}


def data(name: str = "run", **values: Any) -> ReportData:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    examples = [
        Example(Picture(kind, picture.getvalue()), [], kind) for kind in ("The worst", "The best")
    ]
    whole = {"figures": figures(**METRICS), "plots": plots(), "examples": examples}
    return ReportData(f"{name}: 12-bit image codes", **(whole | values))


def drawn_from(plots: PlotData) -> list[Diagram]:
    return diagrams_of(ReportData("run", plots=plots))


def comparison() -> Comparison:
    methods = tuple(
        MethodFigures(
            name=f"{bits} bits, method.initial_codes={init}",
            bits=bits,
            runs=tuple(f"{init}-{bits}-{seed}" for seed in range(2)),
            seeds=(0, 1),
            figures={"map": Spread(0.5 + bits / 100, 0.01), "mrr": Spread(0.9, None)},
            controls={"classifier": 0.5},
        )
        for init in ("random", "zeros")
        for bits in (12, 32)
    )
    gap = Difference(Interval(0.05, 0.01, 0.09, 60), 0.004)
    gaps = (Gap(methods[1].name, methods[0].name, gap),)
    return Comparison(60, 500, "encoded", "random", methods, gaps)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "report.html"
    names = ("first", "second")
    measured, drawn = figures(**METRICS), plots()
    runs = {name: data(name) for name in names}
    opening = overview(
        comparison(),
        dict.fromkeys(names, measured),
        dict.fromkeys(names, drawn),
        {name: run.examples for name, run in runs.items()},
    )
    write_reports("2 runs", list(runs.values()), opening, out)
    return out


def test_every_part_of_the_issue_is_on_the_page(page: Path) -> None:
    text = page.read_text()
    for words in (
        "60 queries against the same",
        "0.620 ± 0.010",
        "+0.0500 mAP",
        "mAP by length of code",
        "Precision and recall",
        "Precision of the first k",
        "Precision within 2 bits",
        "Which classes are mixed up",
        "Map of the codes",
        "Balance of the bits",
        "Closest other bit",
        "Correlation of the bits",
        "Distances of similar and dissimilar pairs",
        "Against simple methods",
        "Classifier&#39;s codeword",
        "Two ways to code the gallery",
        "By class",
        "The worst",
        "The best",
        "Split audit:",
        "NDCG@10",
        "tie rule &#39;stable&#39;",
        "first: 12-bit image codes",
        "second: 12-bit image codes",
    ):
        assert words in text, words
    assert "http" not in text.replace("http-equiv", "")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "report.html"
    digests = {"store": "0123456789abcdef" * 4}
    write_reports("A run", [data(provenance={"data": digests})], None, out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["page", "alone"])
def test_a_browser_shows_it_without_a_fetch_or_a_sideways_scroll(
    browser: Any, which: str, scheme: str, request: pytest.FixtureRequest
) -> None:
    asked: list[str] = []
    said: list[str] = []
    for width in (1280, 390):
        view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        view.on("request", lambda request: asked.append(request.url))
        view.on("console", lambda message: said.append(message.text))
        view.goto(request.getfixturevalue(which).as_uri())
        assert view.evaluate(SIDEWAYS) == 0
        assert view.evaluate(f"{UNFOLD}; {SIDEWAYS}") == 0
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert view.evaluate(broken) == 0
        dark = "getComputedStyle(document.body).backgroundColor == 'rgb(21, 23, 27)'"
        assert view.evaluate(dark) == (scheme == "dark")
        view.close()
    assert not said
    assert {url.split(":", 1)[0] for url in asked} <= {"file", "data"}


def test_a_fold_opens_for_a_link_and_for_print(browser: Any, alone: Path) -> None:
    view = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    view.goto(alone.as_uri())
    measures = view.get_by_text("NDCG@10")
    assert not measures.is_visible()
    view.get_by_role("link", name="All measures").click()
    assert measures.is_visible()
    assert view.evaluate("document.querySelectorAll('details[open]').length") == 1
    summary = view.locator("details[open] > summary").bounding_box()
    assert 0 <= summary["y"] < 200  # its title is not behind the navigation
    view.emulate_media(media="print")
    assert view.get_by_text("learned, rows with a learned code").is_visible()
    assert view.get_by_text("0123456789abcdef" * 4).is_visible()
    assert not view.get_by_role("navigation").is_visible()
    white = "getComputedStyle(document.body).backgroundColor == 'rgb(255, 255, 255)'"
    assert view.evaluate(white)  # on paper the dark has no place
    view.close()


def test_diagrams_hold_the_numbers_that_are_there() -> None:
    by_title = {diagram.title: diagram for diagram in drawn_from(plots())}
    distances = by_title["Distances of similar and dissimilar pairs"]
    assert isinstance(distances, Chart)
    assert distances.curves[0].points[:2] == ((0.0, 0.5), (1.0, 0.3))
    confusion = by_title["Which classes are mixed up"]
    assert isinstance(confusion, Heatmap)
    assert confusion.row_labels == tuple(CLASSES)
    placed = by_title["Map of the codes"]
    assert isinstance(placed, Scatter)
    assert [(name, len(points)) for name, points in placed.groups] == [(c, 3) for c in CLASSES]
    assert drawn_from(PlotData()) == []
    assert curves_at_ranks({"": ()}) is None


def test_many_classes_become_others() -> None:
    placed = next(d for d in drawn_from(plots(40)) if isinstance(d, Scatter))
    assert len(placed.groups) == 24
    assert placed.groups[-1][0] == "others"
    assert sum(len(points) for _, points in placed.groups) == 120


def test_map_by_bits_needs_two_lengths() -> None:
    chart = map_by_bits({"a": {12: (0.5, 0.1), 32: (0.6, 0.0)}})
    assert chart is not None
    assert chart.curves[0].points == ((12.0, 0.5), (32.0, 0.6))
    assert chart.curves[0].errors == (0.1, 0.0)
    assert map_by_bits({"a": {12: (0.5, 0.1)}, "b": {12: (0.6, 0.1)}}) is None


@pytest.mark.parametrize("theme", [draw.LIGHT, draw.DARK])
@pytest.mark.parametrize("classes", [3, 30])
def test_every_diagram_is_drawn(theme: draw.Theme, classes: int) -> None:
    for diagram in drawn_from(plots(classes)):
        assert draw.draw(diagram, theme).startswith(b"<?xml")
    png = Image.open(io.BytesIO(draw.draw_png(diagram, theme)))
    corner = "#{:02x}{:02x}{:02x}".format(*png.convert("RGB").getpixel((0, 0)))
    assert corner == theme.page


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.2, "The model beats the classifier"),
        (-0.2, -0.1, "The classifier's codeword beats the model"),
        (-0.1, 0.1, "has learned classes, not similarity"),
    ],
)
def test_the_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    gap = Difference(Interval((low + high) / 2, low, high, 60), 0.5)
    controls = figures(**METRICS).controls
    differs, unknown = (
        controls.model_copy(update={"model_less_classifier": each}) for each in (gap, None)
    )
    assert words in tables.classifier_verdict(differs)
    assert tables.classifier_verdict(unknown) == tables.classifier_verdict(None) == ""


def test_tables_of_classes_and_galleries() -> None:
    assert [row[0] for row in tables.class_rows(figures(**METRICS))] == ["dog", "cat"]
    assert [row[0] for row in tables.galleries(figures(**METRICS))] == [
        "encoded, whole gallery",
        "learned, rows with a learned code",
    ]
    assert [row[0] for row in tables.control_rows(figures(**METRICS).controls)][
        1
    ] == "Classifier's codeword"


def test_each_figure_is_a_png_and_its_numbers(tmp_path: Path) -> None:
    out = tmp_path / "figures"
    bare = figures(**METRICS | {"controls": None})
    reports = [data(figures=bare, plots=PlotData(distances=plots().distances))]
    write_figures(out, ["run"], reports, None)
    names = sorted(path.name for path in out.iterdir() if path.name != "manifest.json")
    stems = ["distances-of-similar-and-dissimilar-pairs", "precision-and-recall"]
    assert names == sorted(f"{s}{end}" for s in stems for end in (".json", ".png", "-dark.png"))
    saved = json.loads((out / f"{stems[0]}.json").read_text())
    assert saved["curves"][0]["points"][0] == [0.0, 0.5]
    assert Image.open(out / f"{stems[0]}.png").size[0] >= 800
    assert len(diagrams_of(reports[0])) == 2
    write_figures(out, ["run"], reports, None)  # the same again: nothing to do
    with pytest.raises(SchnRayError, match="another request"):
        write_figures(out, ["run"], [data(figures=bare, plots=PlotData())], None)


def test_bits_are_bars_with_dead_ones_and_twins_flagged() -> None:
    correlation = [
        [1.0, -0.96, None, 0.1],
        [-0.96, 1.0, None, 0.2],
        [None, None, None, None],
        [0.1, 0.2, None, 1.0],
    ]
    values = {"bits": {"balance": [0.5, 0.4, 0.0, 0.6], "correlation": correlation}}
    balance, closest = (
        one for one in drawn_from(PlotData.model_validate(values)) if isinstance(one, BitBars)
    )
    assert balance.values == (0.5, 0.4, 0.0, 0.6)
    assert balance.flagged == dead_bits(PlotData.model_validate(values).bits) == (2,)
    assert closest.values == (0.96, 0.96, None, 0.2)
    assert closest.flagged == (0, 1)


def test_the_methods_are_compared_on_the_same_queries() -> None:
    shown = {name: data(name).examples for name in ("first", "second")}
    opening = overview(comparison(), {}, {}, shown)
    assert [one.query.id for one in opening.queries] == ["The worst", "The best"]
    assert [name for name, _ in opening.queries[0].results] == ["first", "second"]
    other = [Example(Picture("another", b""), [])]
    assert overview(comparison(), {}, {}, shown | {"second": other}).queries == ()


@pytest.mark.parametrize(
    ("names", "runs", "short"),
    [
        (["32 bits, method.name=csq, seed=1", "32 bits, method.name=itq"], 1, ["csq", "itq"]),
        (
            ["32 bits, method.name=csq, a=1", "32 bits, method.name=csq, a=2"],
            1,
            ["run-0-0", "run-1-0"],
        ),
        (["32 bits, a=1", "32 bits, a=2"], 2, ["32 bits, a=1", "32 bits, a=2"]),
    ],
)
def test_methods_have_the_shortest_names_that_tell_them_apart(
    names: list[str], runs: int, short: list[str]
) -> None:
    methods = [
        MethodFigures(name, 32, tuple(f"run-{n}-{i}" for i in range(runs)), (0,) * runs, {}, {})
        for n, name in enumerate(names)
    ]
    assert short_names(methods) == dict(zip(names, short, strict=True))


@pytest.mark.parametrize(
    ("best", "low", "words"),
    [
        (1, 0.01, "b is best, with mAP 0.600; these queries tell it apart from a."),
        (1, -0.01, "b is best, with mAP 0.600. These queries do not tell it apart from a."),
        (0, -0.09, "a is best, with mAP 0.600; these queries tell all others apart from it."),
        (0, -0.01, "a is best, with mAP 0.600. These queries do not tell b apart from it."),
    ],
)
def test_a_comparison_says_which_is_best(best: int, low: float, words: str) -> None:
    methods = tuple(
        MethodFigures(name, 12, (name,), (0,), {"map": Spread(score, None)}, {})
        for name, score in zip("ab", [0.5, 0.6] if best else [0.6, 0.5], strict=True)
    )
    gap = Difference(Interval(0.1 if best else -0.1, low, low + 0.02, 60), 0.5)
    compared = Comparison(60, 500, "encoded", "random", methods, (Gap("b", "a", gap),))
    assert overview(compared, {}, {}, {}).verdict == words
