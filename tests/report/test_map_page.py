"""The page of a map in a real browser, used as a person does."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.gallery_codes import draw_clustered, write_codes
from support.image_files import encode_image

import schn_ray

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
sync_api = pytest.importorskip("playwright.sync_api")

ROWS, COPIES = 120, 15
HOSTILE = "!</script><b>"
HUES = """() => {
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data, seen = {};
    for (let i = 0; i < pixels.length; i += 4) {
        if (!pixels[i + 3]) continue;
        const hex = [0, 1, 2].map((j) => pixels[i + j].toString(16).padStart(2, "0"));
        const colour = "#" + hex.join("");
        seen[colour] = (seen[colour] || 0) + 1;
    }
    return Object.entries(seen).filter(([, count]) => count > 40).map(([colour]) => colour).sort();
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of three clusters; the first images have one code, one of them a hostile name."""
    folder = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(1)
    codes = draw_clustered(rng, ROWS, 64, 3, 0.03)
    codes[:COPIES] = codes[0]
    names = [f"{number:03}.png" for number in range(ROWS)]
    names[1] = "a b%20#1.png"
    (folder / "photos").mkdir()
    uris = [str(folder / "photos" / name) for name in names]
    for number, uri in enumerate(uris):
        Path(uri).write_bytes(encode_image(number, (40, 30)))
    ids = [HOSTILE if i == 1 else name for i, name in enumerate(names)]
    write_codes(folder / "codes", ids, codes, 64, uris=uris)
    # fewer thumbnails than points: pictures of the others come from their files
    schn_ray.map_codes(folder / "codes", folder / "map.html", radius=9, pictures=3)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, made: Path):  # type: ignore[no-untyped-def]
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(30_000)
    problems: list[str] = []
    elsewhere: list[str] = []
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: elsewhere.append(r.url))
    opened.goto((made / "map.html").as_uri())
    opened.wait_for_selector("body[data-ready]")
    yield opened
    own = ((made / "map.html").as_uri(), (made / "photos").as_uri(), "data:")
    assert [url for url in elsewhere if not url.startswith(own)] == []
    assert problems == []
    opened.close()


def position(page, point: int) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    x, y = page.evaluate("point => screenOf(point)", point)
    box = page.locator("#canvas").bounding_box()
    return box["x"] + x, box["y"] + y


def point_of(page, id: str) -> int:  # type: ignore[no-untyped-def]
    return page.evaluate(
        """id => {
            for (let row = 0; row < data.ids.ends.length; row++)
                if (idOf(row) === id) return data.starts.findLastIndex((start) => start <= row);
        }""",
        id,
    )


def test_hover_zoom_and_click(page) -> None:  # type: ignore[no-untyped-def]
    copies = point_of(page, "000.png")
    alone = point_of(page, "100.png")
    page.mouse.move(*position(page, alone))
    page.wait_for_selector("#tip:not([hidden])")
    # clusters overlap until they are zoomed into
    before = np.hypot(*np.subtract(position(page, alone), position(page, copies)))
    for _ in range(6):
        page.mouse.move(*position(page, alone))
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(20)
    after = np.hypot(*np.subtract(position(page, alone), position(page, copies)))
    assert after > 20 * before
    page.mouse.move(*position(page, alone))
    page.wait_for_function("() => document.querySelector('#tip img')?.naturalWidth > 0")
    assert page.text_content("#tip").startswith("100.png")
    assert "1 image" in page.text_content("#tip")

    page.fill("#text", "000")
    page.press("#text", "Enter")
    assert page.text_content("#status") == "000.png"
    page.mouse.click(*position(page, copies))
    page.wait_for_function(
        "() => 12 ==="
        " [...document.querySelectorAll('#chosen img')].filter((i) => i.naturalWidth).length"
    )
    shown = page.eval_on_selector_all("#chosen .name", "all => all.map((n) => n.textContent)")
    assert sorted(shown) == shown
    assert HOSTILE in shown
    assert page.text_content("#chosen h2").endswith(f"{COPIES} images of this code")
    assert page.text_content("#chosen .quiet") == f"and {COPIES - 12} more"
    assert page.locator("#chosen b, #tip b").count() == 0
    x, y = position(page, copies)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 50, y - 30, steps=3)
    page.mouse.up()
    assert position(page, copies) == pytest.approx((x + 50, y - 30), abs=0.1)
    assert page.text_content("#chosen h2").endswith(f"{COPIES} images of this code")


def test_points_lie_where_the_table_says(page, made: Path) -> None:  # type: ignore[no-untyped-def]
    table = pq.read_table(made / "map.parquet").to_pydict()
    places = np.array(
        [page.evaluate("p => [data.x[p], data.y[p]]", point_of(page, id)) for id in table["id"]]
    )
    expected = np.stack([table["x"], table["y"]], axis=1)
    expected -= (expected.min(axis=0) + expected.max(axis=0)) / 2
    assert places - 0.5 == pytest.approx(expected / np.ptp(expected, axis=0).max(), abs=1e-5)


def test_search_goes_from_one_id_to_the_next(page) -> None:  # type: ignore[no-untyped-def]
    seen = []
    for _ in range(21):
        page.fill("#text", "11") if not seen else None
        page.press("#text", "Enter")
        seen.append(page.text_content("#status"))
    names = {f"{number:03}.png" for number in range(ROWS) if "11" in f"{number:03}"}
    assert set(seen) == names  # 011 and 110 to 119, and around again
    assert seen[: 21 - len(names)] == seen[len(names) :]
    page.fill("#text", "012.png")
    page.press("#text", "Enter")
    centre = page.evaluate("() => [view.x, view.y]")
    point = point_of(page, "012.png")
    assert centre == page.evaluate("p => [data.x[p], data.y[p]]", point)
    page.fill("#text", "ng01")  # of two ids, one after the other
    page.press("#text", "Enter")
    assert page.text_content("#status") == "No id has “ng01” in it."


def test_the_legend_has_the_colours_of_the_points(page) -> None:  # type: ignore[no-untyped-def]
    entries = page.eval_on_selector_all("#legend button", "all => all.map((b) => b.textContent)")
    assert len(entries) == 3
    assert sum(int("".join(filter(str.isdigit, e.split("group ")[1][1:]))) for e in entries) == ROWS
    assert page.evaluate(HUES) == sorted(page.evaluate("() => hues.slice(0, 3)"))
    page.click("#legend button >> nth=1")
    page.mouse.move(0, 0)
    page.wait_for_timeout(100)
    assert page.evaluate(HUES) == sorted(["#e3e6ea", page.evaluate("() => hues[1]")])
    page.select_option("#colouring", "1")
    page.wait_for_timeout(100)
    entries = page.eval_on_selector_all("#legend span", "all => all.map((b) => b.textContent)")
    assert entries[0] == "alone"
    assert "10 to 99" in entries


def test_pictures_lie_on_the_map(page) -> None:  # type: ignore[no-untyped-def]
    plain = page.evaluate(HUES)
    page.check("#pictures")
    page.wait_for_function("() => [...drawnPictures.values()].some((p) => p.naturalWidth > 0)")
    page.wait_for_timeout(100)
    assert len(page.evaluate("() => [...thumbnails.keys()]")) == 3
    assert page.evaluate(HUES) != plain


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_a_map_sticks_out(page, width: int, scheme: str) -> None:  # type: ignore[no-untyped-def]
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.fill("#text", "012.png")
    page.press("#text", "Enter")
    page.wait_for_function("() => document.querySelector('#chosen img')?.naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("canvas.width") == round(page.locator("#canvas").bounding_box()["width"])
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
