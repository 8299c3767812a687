import base64
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.evaluations import FIGURES, figures
from support.pages import Page

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.plot_data import PlotData
from schn_ray.report import charts, draw, tables, thumbnails
from schn_ray.report.contents import Example, Neighbour, Picture, ReportData
from schn_ray.report.page import write_reports, write_search_page

HOSTILE = "<script>alert('x')</script>\" onerror=\"alert(1)"

METRICS: dict[str, Any] = FIGURES | {
    "gallery_codes": "encoded",
    "bits": 32,
    "queries": 1180,
    "undefined_queries": 3,
    "gallery": 500,
    "map": 0.9712,
    "map_best": 0.982,
    "map_worst": 0.951,
    "map_at": {
        "1000": {"relevant": None, "min": None, "hits": 0.5},
        "200": {"relevant": 0.71, "min": 0.96, "hits": 0.978},
    },
    "precision_at": {"10": 0.981},
    "recall_at": {"10": 0.19},
    "radius": 2,
    "precision_within_radius": 0.964,
    "empty_balls": 0.033,
    "pr_curve": [
        {"threshold": 0, "precision": None, "recall": 0.0, "empty": 1.0},
        {"threshold": 1, "precision": 0.99, "recall": 0.4, "empty": 0.5},
        {"threshold": 2, "precision": 0.5, "recall": 1.0, "empty": 0.0},
    ],
    "unique_share": 0.124,
    "by_class": [
        {"class": name, "queries": 590, "map": score, "low": score, "high": score}
        for name, score in (("cat", 0.95), ("dog", 0.99))
    ],
}


def history(iterations: int) -> list[dict[str, Any]]:
    losses = ("hash_image", "hash_latent", "cycle_image", "adversarial", "discriminator")
    return [
        {
            "iteration": t,
            "loss": {name: (place + 1) / t for place, name in enumerate(losses)},
            "validation_map": None if t % 2 else 1 - 1 / t,
            "unique_share": 1 / t,
            "code_distance": t,
            "images_per_second": 100 + t,
            "data_wait": 0.01 * t,
            "learning_rate": 1e-3 / t,
        }
        for t in range(1, iterations + 1)
    ]


def image_file(size: tuple[int, int], kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind)
    return out.getvalue()


def example(name: str = "q", neighbours: int = 3) -> Example:
    found = [
        Neighbour(Picture(f"{name}-{i}", image_file((8, 8))), 10 + i, i % 2 == 0)
        for i in range(neighbours)
    ]
    return Example(Picture(name, image_file((8, 8)), "class 7"), found)


def report(tmp_path: Path, **values: Any) -> Page:
    data = ReportData(**{"title": "Digits", **values})
    write_reports(data.title, [data], None, tmp_path / "report.html")
    return Page(tmp_path / "report.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(
        tmp_path_factory.mktemp("full"),
        command="schn-ray demo",
        summary_rows=[("Training", "1 min", "2 workers")],
        figures=figures(**METRICS),
        history=history(6),
        examples=[example(f"query {i}") for i in range(12)],
        provenance={"model": "1b4f", "versions": {"torch": "2.15.0"}},
    )


def svgs(page: Page) -> list[bytes]:
    uris = [a.get("src", a.get("srcset", "")) for _, a in page.elements]
    head = "data:image/svg+xml;base64,"
    return [base64.b64decode(u.removeprefix(head)) for u in uris if u.startswith(head)]


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        for name in ("src", "srcset", "data", "style"):
            assert attributes.get(name, "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"https?:|@import|url\(", page.html)
    for svg in svgs(page):
        for element in ElementTree.fromstring(svg).iter():
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith("#")


def test_every_part_is_there(page: Page) -> None:
    for words in (
        "Digits",
        "mAP 0.971: 1,180 queries against 500 gallery images, 32-bit codes.",
        "Gallery codes: encoded",
        "mean average precision",
        "schn-ray demo",
        "2 workers",
        "Versions",
        "2.15.0",
        "Precision and recall",
        "Hash losses",
        "Cycle losses",
        "Adversarial losses",
        "Validation mAP",
        "Share of distinct codes",
        "Distance between class codes",
        "Waiting for images",
        "Learning rate",
        "Made from",
    ):
        assert words in page.text
    assert len(svgs(page)) == 20  # ten charts, light and dark


def test_the_verdict_and_pictures_are_open_and_the_rest_is_folded(page: Page) -> None:
    assert page.open_text.index("Good: 10 of the first 10") < page.open_text.index("2 of 3 right")
    assert page.open_text.index("2 of 3 right") < page.open_text.index("2 workers")
    assert "Precision and recall" not in page.open_text
    assert "torch" not in page.open_text
    opening = [a for tag, a in page.open_elements if a.get("class") == "example"]
    assert len(opening) == 4


def test_links_lead_to_what_they_name(page: Page) -> None:
    links = [a["href"].removeprefix("#") for tag, a in page.elements if tag == "a"]
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert len(links) > 5
    assert sorted(links) == sorted(ids)
    # a browser unfolds what contains the target of a link, so the target must be inside
    assert not any("id" in a for tag, a in page.elements if tag == "details")


def test_a_long_digest_is_short_until_it_is_opened(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    page = report(tmp_path, provenance={"data": {"store": digest, "note": "0123456789ab"}})
    (summary,) = (a for tag, a in page.elements if tag == "summary" and "title" in a)
    assert summary["title"] == digest
    assert page.text.count(digest) == 1
    assert f"{digest[:12]}…" in page.text


def test_dead_bits_are_flagged(tmp_path: Path) -> None:
    bits = {"balance": [0.5, 1.0, 0.4, 0.0], "correlation": []}
    dead = report(tmp_path, figures=figures(), plots=PlotData.model_validate({"bits": bits}))
    assert "Dead bits: 2 of 4 (bits 1, 3) are the same" in dead.open_text
    bits["balance"] = [0.5, 0.999, 0.001, 0.4]
    alive = report(tmp_path, figures=figures(), plots=PlotData.model_validate({"bits": bits}))
    assert "Dead bits" not in alive.text


def test_every_example_has_its_distances_and_marks(page: Page) -> None:
    assert page.of_class("example") == page.of_class("query") == 12
    assert [page.text.count(f"{d} bits") for d in (10, 11, 12, 13)] == [12, 12, 12, 0]
    grid = page.html[page.html.index('<article class="example">') :]
    marks = re.findall(r'<figure class="(\w+)">|aria-label="(\w+)">(.)</b>', grid)
    assert [a or (b, c) for a, b, c in marks][:7] == [
        "query",
        "right",
        ("right", "✓"),
        "wrong",
        ("wrong", "✗"),
        "right",
        ("right", "✓"),
    ]
    assert page.text.count("2 of 3 right") == 12
    ids = {a["alt"] for tag, a in page.elements if tag == "img"}
    assert {f"query {q}-{n}" for q in range(12) for n in range(3)} <= ids


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    bad = Picture(HOSTILE, b"", HOSTILE)
    page = report(
        tmp_path,
        title=HOSTILE,
        command=HOSTILE,
        summary_rows=[(HOSTILE, HOSTILE, HOSTILE)],
        figures=figures(by_class=[{"class": HOSTILE, "queries": 1, "map": 1, "low": 1, "high": 1}]),
        history=[{"iteration": 1, "loss": {HOSTILE: 1.0}}],
        examples=[Example(bad, [Neighbour(bad, 1, True)])],
        provenance={HOSTILE: HOSTILE},
    )
    assert not any(tag == "script" or "onerror" in a for tag, a in page.elements)
    assert page.text.count(HOSTILE) == 11
    write_search_page(tmp_path / "search.html", HOSTILE, [Example(bad, [Neighbour(bad, 1)])])
    found = Page(tmp_path / "search.html")
    assert not any(tag == "script" or "onerror" in a for tag, a in found.elements)


def test_names_that_are_not_text_are_written(tmp_path: Path) -> None:
    page = report(tmp_path, examples=[example("caf\udce9.png", 1)])
    assert any(a.get("alt") == "caf?.png" for _, a in page.elements)


ROW_OF = {  # the row that says a figure; the last two are always known
    "map": "mAP",
    "map_at": "mAP@200, hits",
    "precision_at": "Precision@10",
    "recall_at": "Recall@10",
    "precision_within_radius": "Precision within 2 bits",
    "unique_share": "Distinct codes",
    "undefined_queries": "Queries left out",
}


@pytest.mark.parametrize(
    ("key", "nothing"),
    [
        *((key, None) for key in ("map", "map_best", "map_worst", "map_interval", "mrr")),
        *((key, None) for key in ("precision_within_radius", "empty_balls", "controls")),
        *((key, {}) for key in ("map_at", "precision_at", "recall_at", "ndcg_at", "legacy")),
        *((key, []) for key in ("pr_curve", "by_class", "side_by_side")),
    ],
)
def test_a_measure_that_is_undefined_is_left_out(tmp_path: Path, key: str, nothing: Any) -> None:
    labels = [label for label, _, _ in tables.metric_rows(figures(**METRICS | {key: nothing}))]
    assert ROW_OF.get(key) not in labels
    assert set(ROW_OF.values()) - {ROW_OF.get(key)} <= set(labels)
    page = report(tmp_path, figures=figures(**METRICS | {key: nothing, "pr_curve": []}))
    assert "None" not in page.text


def test_an_empty_report_says_so(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "no evaluation" in page.text
    assert not any(tag in {"table", "img", "h2", "details", "nav"} for tag, _ in page.elements)


def test_the_table_says_values_and_conventions() -> None:
    rows = {label: (value, note) for label, value, note in tables.metric_rows(figures(**METRICS))}
    assert rows["mAP"][0] == "0.971"
    assert "0.951" in rows["mAP"][1]
    assert "0.982" in rows["mAP"][1]
    assert [label for label in rows if "@" in label] == [
        "mAP@200, relevant",
        "mAP@200, min",
        "mAP@200, hits",
        "mAP@1000, hits",
        "Precision@10",
        "Recall@10",
    ]
    assert rows["mAP@200, hits"][0] == "0.978"
    assert "3.3%" in rows["Precision within 2 bits"][1]
    assert rows["Distinct codes"][0] == "12.4%"
    assert rows["Queries left out"][0] == "3"


def test_learned_codes_come_with_a_warning() -> None:
    assert "published tables only" in tables.gallery_codes(figures(gallery_codes="learned"))


def test_curves_hold_the_numbers_that_are_there() -> None:
    rows = [
        {"iteration": 1, "loss": {"hash_image": 2.0, "new": 5.0}, "validation_map": None},
        {"iteration": 2, "loss": None, "validation_map": 0.5, "unique_share": float("nan")},
        {"iteration": 3, "loss": {"hash_image": 1.0}, "validation_map": 0.25},
        {"loss": {"hash_image": 7.0}},
    ]
    hashes, other, validation = charts.training_charts(rows)
    assert hashes.curves == (charts.Curve("image", ((1, 2.0), (3, 1.0))),)
    assert other.curves == (charts.Curve("new", ((1, 5.0),)),)
    assert validation.curves[0].points == ((2, 0.5), (3, 0.25))
    assert "best 0.500, after iteration 2" in validation.caption


def test_the_pr_curve_leaves_out_undefined_precision() -> None:
    chart = charts.precision_recall({"": figures(**METRICS).pr_curve})
    assert chart is not None
    assert chart.curves[0].points == ((0.4, 0.99), (1.0, 0.5))


@pytest.mark.parametrize("iterations", [1, 2, 40])
def test_figures_are_drawings_with_a_line_a_curve(iterations: int) -> None:
    for chart in charts.training_charts(history(iterations)):
        svg = draw.draw(chart, draw.DARK)
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        for colour in draw.DARK.curves[: len(chart.curves)]:
            assert f"stroke: {colour.lower()}".encode() in svg
        assert b"fill: #ffffff" not in svg  # a white card on a dark page


@pytest.mark.parametrize("low", [0.0, -1.0, 1.0])
def test_a_loss_of_zero_or_below_can_be_drawn(low: float) -> None:
    rows = [{"iteration": t, "loss": {"hash_image": v}} for t, v in enumerate([low, 1e6])]
    assert draw.draw(charts.loss_charts(rows)[0], draw.LIGHT)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA"])
def test_a_tiny_image_keeps_its_pixels(mode: str) -> None:
    original = image_file((32, 20), mode=mode)
    shown = thumbnails.inline(original)
    assert shown is not None
    assert shown.pixelated
    expected = Image.open(io.BytesIO(original)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decoded(shown.uri)), np.asarray(expected))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("JPEG", "CMYK"), ("BMP", "RGB")])
def test_a_photo_becomes_a_thumbnail(kind: str, mode: str) -> None:
    shown = thumbnails.inline(image_file((1500, 900), kind, mode))
    assert shown is not None
    assert not shown.pixelated
    assert decoded(shown.uri).size == (224, 134)
    assert len(shown.uri) < 40_000


def test_a_photo_is_turned_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter
    out = io.BytesIO()
    Image.new("RGB", (300, 100)).save(out, "JPEG", exif=exif)
    shown = thumbnails.inline(out.getvalue())
    assert shown is not None
    assert decoded(shown.uri).size == (75, 224)


@pytest.mark.parametrize(
    "data", [b"", b"<html>", image_file((300, 300), "JPEG")[:900], image_file((8, 8))[:60]]
)
def test_what_is_no_image_gets_a_placeholder(tmp_path: Path, data: bytes) -> None:
    assert thumbnails.inline(data) is None
    broken = Example(Picture("a", data), [Neighbour(Picture("b", data), 3, False)])
    page = report(tmp_path, examples=[broken])
    assert page.of_class("no-picture") == 2
    assert page.of_class("wrong") == 2  # the key and the neighbour
    assert "3 bits" in page.text


def test_tiny_images_are_drawn_with_square_pixels(tmp_path: Path) -> None:
    page = report(tmp_path, examples=[example()])
    assert page.of_class("pixelated") == 4
    assert "image-rendering: pixelated" in page.html


def test_a_search_page_judges_nothing(tmp_path: Path) -> None:
    found = [Neighbour(Picture("photos/a/cat.png", image_file((90, 60))), 1)]
    query = Picture("mine.png", image_file((8, 8)))
    write_search_page(tmp_path / "new" / "search.html", "Found", [Example(query, found)])
    page = Page(tmp_path / "new" / "search.html")
    assert page.of_class("right") == page.of_class("wrong") == page.of_class("verdict") == 0
    assert page.of_class("unjudged") == 1
    assert re.search(r"\b1 bit\b", page.text)
    assert "cat.png" in page.text
    assert "photos/a" not in page.text
    assert any(a.get("title") == "photos/a/cat.png" for _, a in page.elements)
    assert not re.search("[✓✗]", page.text)


def test_a_directory_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="is a directory"):
        write_reports("Digits", [ReportData("Digits")], None, tmp_path)


def test_equal_input_gives_equal_bytes_and_leaves_nothing_beside(tmp_path: Path) -> None:
    first, second = (
        report(tmp_path, figures=figures(**METRICS), examples=[example()]) for _ in range(2)
    )
    assert first.html == second.html
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_importing_the_package_is_light() -> None:
    code = "import sys, schn_ray.report; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "torch", "ray", "numpy"} & set(done.stdout.split())
