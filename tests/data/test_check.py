from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import makers
from support.image_files import encode_image, write_tree
from support.users import Run

from schn_ray.core.errors import SchnRayError
from schn_ray.data.check import Report, check_source, render
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.report.check import write_check_page


def look(location: Path | str, **settings: Any) -> Report:
    config = SourceConfig(**settings)
    return check_source(open_source(str(location), config), config)


def test_a_good_folder(image_tree: Path) -> None:
    (image_tree / "owl" / "wide.png").write_bytes(encode_image(99, (40, 10)))
    (image_tree / "owl" / "copy.png").write_bytes((image_tree / "cat" / "000.png").read_bytes())
    report = look(image_tree)
    assert (report.kind, report.rows, report.bad_rows) == ("folder", 32, [])
    assert report.classes == {"owl": 12, "cat": 10, "dog": 10}
    assert (report.unlabelled, report.multi_label, report.repeated_images) == (0, 0, 1)
    assert report.sizes == {"smallest": [16, 12], "median": [16, 12], "largest": [40, 10]}
    text = render(report)
    assert "32: 32 good, 0 bad" in text
    assert "3; largest 'owl' 12, smallest 'dog' 10" in text
    assert text.endswith(f"Next: schn-ray prepare {image_tree} --out store")
    assert json.loads(json.dumps(report.to_json()))["classes"]["owl"] == 12


def test_every_bad_row_is_named_up_to_twenty(image_tree: Path) -> None:
    for i in range(25):
        (image_tree / "cat" / f"bad{i:02}.jpg").write_bytes(b"")
    (image_tree / "cat" / "a\nb.png").write_bytes(b"<html>")
    os.mkfifo(image_tree / "dog" / "pipe.png")
    report = look(image_tree)
    assert (report.rows, len(report.bad_rows)) == (57, 27)
    assert {row.reason for row in report.bad_rows} >= {"empty: 0 bytes", "not a regular file"}
    text = render(report)
    assert "    cat/bad03.jpg: empty: 0 bytes\n" in text
    assert r"    'cat/a\nb.png': not an image" in text
    assert "    and 7 more" in text
    assert "cat/bad20.jpg" not in text
    assert "max_bad_share = 0.01 of the rows are bad: 'prepare' would stop" in text
    assert len(report.to_json()["bad_rows"]) == 27


@pytest.mark.parametrize(
    ("classes", "bad"),
    [
        ({"cat": 9}, 0),
        ({"cat": 12, "dog": 2}, 0),
        ({"cat": 210, "dog": 2}, 0),
        ({"a": 8, "b": 8}, 3),
    ],
)
def test_the_next_command_can_be_run(
    tmp_path: Path,
    classes: dict[str, int],
    bad: int,
    monkeypatch: pytest.MonkeyPatch,
    schn_ray: Run,
) -> None:
    """One class, classes that are too small to be split, and bad images above the limit."""
    tree = write_tree(tmp_path / "photos", classes)
    for number in range(bad):
        (tree / "a" / f"bad{number}.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("schn_ray.cli.data.workers_of", lambda _: None)  # without Ray
    command, *words = shlex.split(look(tree).next_command)
    assert command == "schn-ray"
    answer = schn_ray(*words)
    assert answer.code == 0, answer.err
    assert (tmp_path / "store/manifest.json").is_file()


def test_labels_ids_and_the_settings_of_the_next_command(tmp_path: Path) -> None:
    path = tmp_path / "my pictures.parquet"
    columns = {
        "key": ["a", "b", "a", "c"],
        "img": [encode_image(i) for i in range(4)],
        "tags": [["x", "y"], ["x"], ["x"], []],
    }
    pq.write_table(pa.table(columns), path)
    report = look(path, id_column="key", image_column="img", label_column="tags")
    assert [(row.id, row.reason) for row in report.bad_rows] == [("a", f"same id as {path}#0:img")]
    assert (report.classes, report.unlabelled, report.multi_label) == ({"x": 2, "y": 1}, 1, 1)
    assert report.next_command == (
        f"schn-ray prepare '{path}' --out store --set source.id_column=key "
        "--set source.image_column=img --set source.label_column=tags "
        "--set source.max_bad_share=0.25"
    )


def test_unlabelled_and_one_class(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "1.png").write_bytes(encode_image())
    report = look(tmp_path / "plain")
    assert report.unlabelled == 1
    assert "none: methods that need no labels can be trained" in render(report)
    assert report.next_command == (
        f"schn-ray prepare {tmp_path / 'plain'} --out store --protocol unlabelled"
    )
    text = render(look(write_tree(tmp_path / "one", {"cat": 2})))
    assert "1, 'cat' with 2 images: training needs at least two classes" in text


def test_nothing_good(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    report = look(tmp_path)
    assert (report.rows, report.sizes, report.classes) == (1, {}, {})
    assert "pixels" not in render(report)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="no images in there"):
        look(tmp_path)


def test_every_row_advances_the_progress(image_tree: Path) -> None:
    counts: list[int] = []
    config = SourceConfig()
    check_source(open_source(str(image_tree), config), config, counts.append)
    assert sum(counts) == 30


def test_overlaps_copies_and_the_data_set_s_own_split(tmp_path: Path) -> None:
    images = [encode_image(i) for i in (0, 1, 2, 3, 0, 1)]
    tags = [["cat", "animal"], ["animal"], ["cat", "animal"], ["car"], ["cat", "animal"], ["car"]]
    split = ["train", "train", "test", "database", "train", "train"]
    table = {"id": list("abcdef"), "image": images, "label": tags, "split": split}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    report = look(tmp_path / "x.parquet")
    assert report.overlaps == [("cat", "animal", 3, True)]
    assert report.copies == [["b", "f"], ["a", "e"]]  # those with different labels first
    assert report.splits == {"train": 4, "test": 1, "database": 1}
    text = render(report)
    assert "cat and animal: every 'cat' is one" in text
    assert "b = f" in text
    assert "parquet, guessed from its content" in text
    assert "as given" in render(look(tmp_path / "x.parquet", kind="parquet"))


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (makers.market, "--protocol market1501"),
        (makers.coco, "--protocol coco"),
        (makers.hashnet, "--protocol listed"),
    ],
)
def test_the_next_command_knows_the_protocol(
    make: Callable[[Path], Path], option: str, tmp_path: Path
) -> None:
    report = look(make(tmp_path))
    assert option in report.next_command
    assert report.cameras == (4 if make is makers.market else 0)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def write_page(tmp_path: Path) -> Path:
    tree = write_tree(tmp_path / "images", {"cat": 9, "<b>dog": 4})
    (tree / "cat" / "bad.png").write_bytes(b"<html>")
    (tree / "cat" / "copy.png").write_bytes((tree / "cat" / "000.png").read_bytes())
    config = SourceConfig()
    source = open_source(str(tree), config)
    write_check_page(check_source(source, config, samples=True), tmp_path / "check.html")
    return tmp_path / "check.html"


def test_the_page_has_all_of_it(tmp_path: Path) -> None:
    html = write_page(tmp_path).read_text()
    assert html.count("<img") == 6 + 4
    for text in ("schn-ray prepare", "&lt;b&gt;dog", "not an image", "cat/copy.png"):
        assert text in html
    assert "<b>dog" not in html
    assert "http" not in html.replace("http-equiv", "")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    page_file = write_page(tmp_path)
    messages: list[str] = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 420, "height": 900})
        page.on("console", lambda message: messages.append(message.text))
        page.goto(page_file.as_uri())
        loaded = "[...document.images].map(i => i.complete && i.naturalWidth > 0)"
        assert page.evaluate(loaded) == [True] * 10
        width = page.evaluate("document.documentElement.scrollWidth")
        bars = page.evaluate("[...document.querySelectorAll('.bar div')].map(b => b.offsetWidth)")
        browser.close()
    assert not messages
    assert width <= 420  # nothing to scroll sideways on a telephone
    assert bars[0] > bars[1] > 0
