"""The search page in a real browser, used as a person does."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.service import served, write_gallery

from schn_ray.models.load import load
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.index.index import open_index

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
sync_api = pytest.importorskip("playwright.sync_api")

DROP = """([name, data]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    for (const kind of ["dragenter", "dragover", "drop"]) {
        const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true });
        document.getElementById("drop").dispatchEvent(event);
    }
}"""
LOADED = """() => {
    const pictures = [...document.querySelectorAll("#results img")];
    const seen = pictures.filter((p) => p.getBoundingClientRect().top < innerHeight);
    return seen.length > 0 && seen.every((p) => p.complete && p.naturalWidth > 0);
}"""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(gallery: Path) -> Iterator[str]:
    with served(gallery, ServeConfig()) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(browser, address: str):  # type: ignore[no-untyped-def]
    opened = browser.new_page()
    opened.set_default_timeout(30_000)
    problems: list[str] = []
    elsewhere: list[str] = []
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: elsewhere.append(r.url))
    opened.goto(address)
    # a function, as the page's own policy refuses what must be evaluated anew at each look
    opened.wait_for_function("() => document.getElementById('about').textContent")
    opened.problems = problems
    yield opened
    own = (address, "blob:", "data:")
    assert [url for url in elsewhere if not url.startswith(own)] == []
    opened.close()


def drop(page, name: str, data: bytes) -> None:  # type: ignore[no-untyped-def]
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])


def results(page) -> list[str]:  # type: ignore[no-untyped-def]
    page.wait_for_selector("#results:not(.old)", state="attached")
    return page.eval_on_selector_all("#results li", "all => all.map((hit) => hit.dataset.id)")


def test_drop_an_image_then_click_a_result_then_move_the_slider(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    photo = gallery / "photos" / "dog & co" / "007.png"
    drop(page, "mine.png", photo.read_bytes())
    page.wait_for_function(LOADED)
    index, codes = open_index(gallery / "index"), load(gallery / "model").encode([photo])
    expected = index.search(codes, 40)
    assert results(page) == expected.ids(0)
    assert page.text_content("#looking") == "Images like mine.png"
    assert page.text_content("#status") == "The nearest 40 of 40"
    near = page.eval_on_selector_all("#results .distance", "all => all.map((d) => d.textContent)")
    assert near[0] == "same code"
    assert near[-1] == f"{expected.distances[0, -1]} bits"

    clicked = expected.ids(0)[3]
    page.click(f'#results button[title="More like {clicked}"]')
    page.wait_for_function("() => document.getElementById('status').textContent.includes('39')")
    assert clicked not in results(page)
    assert page.text_content("#looking") == f"More like {clicked} ({clicked.split()[0][:3]})"
    page.wait_for_function("() => document.getElementById('query').naturalWidth > 0")

    code = index.codes(expected.rows[0, 3:4])
    radius = int(index.search(code, 6).distances[0, -1])
    page.focus("#radius")
    page.keyboard.press("Home")
    for _ in range(radius):
        page.keyboard.press("ArrowRight")
    within = [id for id in index.within(code, radius).ids(0) if id != clicked]
    page.wait_for_function(
        "n => document.querySelectorAll('#results li').length === n", arg=len(within)
    )
    assert results(page) == within
    assert len(within) >= 5
    assert page.text_content("#bits") in (f"{radius} bits", f"{radius} bit")
    assert page.problems == []


def test_finer_order_is_by_score(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    photo = gallery / "photos" / "cat" / "000.png"
    index, hasher = open_index(gallery / "index"), load(gallery / "model")
    F, U = hasher.outputs_of([photo])
    codes = hasher.encode([photo])
    cosines = index.rescored("features", codes, F, 40, 400)
    orders = [found.ids(0) for found in (index.search(codes, 40), index.scored(U, 40), cosines)]
    near = orders[0]
    assert near[0] == "cat/000.png"  # else it would come first for its bytes
    assert len({tuple(order) for order in orders}) == 3
    drop(page, "mine.png", photo.read_bytes())
    page.wait_for_function(LOADED)
    assert results(page) == near
    for order, expected, status in (
        ("query", orders[1], "The best 40 of 40"),
        ("features", orders[2], "The best 40 of 40. All 40 were scored."),
        ("", near, "The nearest 40 of 40"),
    ):
        page.select_option("#rescore", order)
        page.wait_for_function(
            "t => document.getElementById('status').textContent === t", arg=status
        )
        assert results(page) == expected
        if order == "features":
            assert page.text_content("#results .score") == f"score {cosines.scores[0]:.3f}"
    assert page.problems == []


def test_a_filter_narrows_what_is_shown(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    photo = gallery / "photos" / "cat" / "007.png"
    drop(page, "mine.png", photo.read_bytes())
    page.wait_for_function(LOADED)
    assert page.text_content("#columns") == (
        "Columns: label (text), number (integer). Also id and uri."
    )
    page.fill("#where", "label = 'dog' and numbr < 4")
    page.press("#where", "Enter")
    page.wait_for_selector("#wrong:not([hidden])")
    assert "no column 'numbr'; did you mean 'number'?" in page.text_content("#wrong p")
    assert page.text_content("#wrong pre").endswith(f"\n  {' ' * 18}^")
    assert results(page) == []
    page.fill("#where", "label = 'dog' and " + "numbr < 4 and " * 9 + "number > 2")
    page.press("#where", "Enter")
    page.wait_for_function("() => document.getElementById('wrong').textContent.includes('...')")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.problems.clear()  # the browser logs each answer of 400

    page.fill("#where", "label = 'dog' and number < 4")
    page.press("#where", "Enter")
    page.wait_for_function("() => document.querySelectorAll('#results li').length === 4")
    view = open_index(gallery / "index").where("label = 'dog' and number < 4")
    assert results(page) == view.search(load(gallery / "model").encode([photo]), 4).ids(0)
    assert page.text_content("#status") == "The nearest 4 of 4 that pass the filter"
    assert page.is_hidden("#wrong")
    page.fill("#where", "")
    page.press("#where", "Enter")
    page.wait_for_function("() => document.querySelectorAll('#results li').length === 40")
    assert page.problems == []


def test_a_class_is_chosen_from_a_list(page) -> None:  # type: ignore[no-untyped-def]
    page.wait_for_selector("#value")
    options = page.eval_on_selector_all("#value option", "all => all.map((each) => each.text)")
    assert options == ["any (2)", "cat (20)", "dog (20)"]
    page.select_option("#value", label="dog (20)")
    page.wait_for_function("() => document.querySelectorAll('#results li').length === 20")
    assert {id.split("/")[0] for id in results(page)} == {"dog & co"}  # before any search
    page.click("#results li:nth-child(3) button")
    page.wait_for_function("() => document.getElementById('status').textContent.includes('20')")
    assert {id.split("/")[0] for id in results(page)} == {"dog & co"}
    page.fill("#where", "number < 4")
    page.press("#where", "Enter")
    page.wait_for_function("() => document.querySelectorAll('#results li').length === 7")
    chosen = "document.getElementById('value').selectedOptions[0].text"
    assert page.evaluate(chosen) == "as the filter says"
    for choice in ("dog (20)", "dog (20)", "any (2)"):  # of the search, of the list, at first
        page.go_back()
        page.wait_for_function(f"() => {chosen} === '{choice}'")
    assert page.problems == []


def test_what_is_not_an_image_is_said(page) -> None:  # type: ignore[no-untyped-def]
    drop(page, "notes.txt", b"not an image")
    page.wait_for_selector("#status.wrong")
    assert "the image cannot be used: not an image" in page.text_content("#status")
    assert results(page) == []


def test_choosing_a_file_with_the_keyboard(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    for _ in range(3):  # after the links to the start and to the API
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files("#file", gallery / "photos" / "cat" / "000.png")
    page.wait_for_selector("#results .distance")
    assert "cat/000.png" in results(page)
    order = []
    for _ in range(7):  # over the slider and the filter, through to the first result
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert order == ["radius", "value", "SUMMARY", "where", "rescore", "k", "A"]
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('large').naturalWidth > 0")
    first, second = results(page)[:2]
    assert first in page.text_content("#viewed")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "id => document.getElementById('viewed').textContent.includes(id)", arg=second
    )
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    page.wait_for_function("() => history.state.view === undefined")
    assert page.text_content("#looking") == "Images like 000.png"


def test_the_original_is_one_click_away_and_one_that_is_gone_is_said(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    page.goto(f"{page.url}?id=cat/000.png")
    page.wait_for_selector("#results .distance")
    id = results(page)[0]
    photo = gallery / "photos" / id
    card = page.locator(f'#results li[data-id="{id}"]')
    assert card.locator(".path").text_content() == id
    assert card.locator(".labels").text_content() == id.split()[0].split("/")[0]
    assert card.locator("img").get_attribute("alt") == f"{id.split()[0].split('/')[0]}: {id}"
    card.locator("a").click()
    page.wait_for_function("() => document.getElementById('large').src.startsWith('blob:')")
    href = page.locator("#alone").get_attribute("href")
    assert page.request.get(f"{page.url.partition('?')[0]}{href[1:]}").body() == photo.read_bytes()
    page.go_back()
    page.wait_for_selector("#viewer", state="hidden")
    content = photo.read_bytes()
    photo.unlink()
    try:
        card.locator("a").click()
        page.wait_for_function("() => document.getElementById('note').textContent")
    finally:
        photo.write_bytes(content)
    assert page.text_content("#note") == f"the original of {id!r} is gone: moved or deleted"
    page.problems.clear()  # the browser logs the answer of 404


def test_the_state_is_in_the_address_and_back_and_forward_go_through_it(
    page, gallery: Path
) -> None:  # type: ignore[no-untyped-def]
    def state() -> tuple[str, str, str, list[str]]:
        page.wait_for_selector("#results:not(.old) .distance")
        texts = [page.text_content(where) for where in ("#looking", "#bits", "#status")]
        return (*texts, results(page))

    start = page.url
    photo = gallery / "photos" / "cat" / "007.png"
    drop(page, "mine.png", photo.read_bytes())
    page.wait_for_function("() => location.search.includes('sha256=')")
    seen = [(page.url, state())]
    page.fill("#where", "number < 12")
    page.press("#where", "Enter")
    page.wait_for_function("() => location.search.includes('where=')")
    seen.append((page.url, state()))
    page.focus("#radius")
    for radius in (11, 10, 9):  # steps of the slider are one step of the history
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("r => location.search.includes(`radius=${r}`)", arg=radius)
    seen.append((page.url, state()))
    page.click("#results li:nth-child(3) button")
    page.wait_for_function("() => location.search.includes('id=')")
    page.wait_for_function("() => document.getElementById('query').naturalWidth > 0")
    seen.append((page.url, state()))
    assert len({answer[:3] for _, answer in seen}) == 4
    for url, answer in reversed(seen[:-1]):
        page.go_back()
        page.wait_for_url(url)
        assert state() == answer
    assert page.is_visible("#query")  # the image that was dropped, too
    page.go_back()
    page.wait_for_url(start)
    page.wait_for_selector("#begin:not([hidden])")
    for url, answer in seen:
        page.go_forward()
        page.wait_for_url(url)
        assert state() == answer
    for url, (looking, *answer) in seen:  # a link, opened by somebody else
        page.goto("about:blank")
        page.goto(url)
        looking_now, *answer_now = state()
        assert answer_now == answer
        assert (looking_now == looking) == ("id=" in url)  # of the image, there is only its code
    assert page.problems == []


def test_a_moved_slider_keeps_own_bytes_first(page, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    index = open_index(gallery / "index")
    codes, ids = index.codes(np.arange(40)), index.ids(np.arange(40))
    second = next(ids[i] for i in range(40) if (codes[:i] == codes[i]).all(axis=1).any())
    drop(page, "mine.png", (gallery / "photos" / second).read_bytes())
    page.wait_for_function("() => location.search.includes('sha256=')")
    assert results(page)[0] == second  # though another image of the same code has a lesser id
    page.focus("#radius")
    page.keyboard.press("Home")
    page.wait_for_function("() => location.search.includes('radius=0')")
    assert results(page)[0] == second


def test_an_address_with_a_misspelt_name_says_the_right_one(page) -> None:  # type: ignore[no-untyped-def]
    for query, why in (
        ("id=cat/000.png&raduis=3", "unknown parameter 'raduis'; did you mean 'radius'?"),
        ("id=cat/000.png&k=x", "k is 'x'; send a whole number from 1 to 200"),
        ("id=cat/none.png", "'cat/none.png' is not an id of the index"),
        ("ids=cat/000.png", 'send {"id": ...} or {"code": ...}, one of the two; did you mean'),
    ):
        page.goto(f"{page.url.partition('?')[0]}?{query}")
        page.wait_for_selector("#status.wrong")
        assert why in page.text_content("#status")
    page.problems.clear()  # the browser logs each answer of 400


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out(  # type: ignore[no-untyped-def]
    page, gallery: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    drop(page, "x" * 200 + ".png", (gallery / "photos" / "cat" / "001.png").read_bytes())
    page.wait_for_function(LOADED)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")
    page.screenshot(path=tmp_path / "page.png")
