"""The pages of ``duplicates``: what they show, and that they stay small."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.gallery_codes import write_codes
from support.image_files import encode_image

import schn_ray
from schn_ray.report import duplicates


def write_gallery(folder: Path, code_of: list[int]) -> Path:
    """Write an image a row, and codes; the row number is the id."""
    folder.mkdir()
    paths = [folder / f"{number:03} <i>.png" for number in range(len(code_of))]
    for number, path in enumerate(paths):
        path.write_bytes(encode_image(number, (16 + number, 12)))
    codes = np.array(code_of, np.uint8)[:, None]
    ids, uris = [path.name for path in paths], [str(path) for path in paths]
    return write_codes(folder / "codes", ids, codes, 8, uris=uris)


def pictures(page: str) -> list[str]:
    return re.findall(r'alt="(\d+) &lt;i&gt;.png"', page)


def test_a_page_of_groups(tmp_path: Path) -> None:
    codes = write_gallery(tmp_path / "photos", [0, 1, 240, 15, 1, 240, 0])
    (tmp_path / "photos" / "004 <i>.png").write_bytes(b"no image")
    page = tmp_path / "page.html"
    result = schn_ray.duplicates(
        codes, tmp_path / "g.parquet", radius=1, verify="none", keep="best", html=page
    )
    html = page.read_text()
    assert str(result.counts) in html
    assert "differ in at most 1 bits" in html
    # larger group first; the one to keep first, then by distance
    assert pictures(html) == ["006", "000", "001", "005", "002"]
    assert html.count("no picture") == 1
    assert html.count("✓ keep") == 2
    assert html.count("22 x 12, ") == html.count("17 x 12, ") == html.count("size unknown") == 1
    assert html.index("Group 0: 4 images") < html.index("Group 1: 2 images")
    assert html.count("1 bit<") == 2
    assert "<i>" not in html
    assert "http" not in html.split("</style>")[1]


def test_a_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = write_gallery(tmp_path / "photos", [0, 0, 0, 9, 9, 99, 99])
    monkeypatch.setattr(duplicates, "_GROUPS", 2)
    monkeypatch.setattr(duplicates, "_IMAGES", 2)
    page = tmp_path / "page.html"
    schn_ray.duplicates(codes, tmp_path / "g.parquet", verify="none", html=page)
    html = page.read_text()
    assert pictures(html) == ["000", "001", "003", "004"]
    assert html.count("and 1 more") == 2  # images of the first group, and groups
    assert "as many pictures" not in html
    monkeypatch.setattr(duplicates, "_PICTURE_BYTES", 500)
    schn_ray.duplicates(codes, tmp_path / "g.parquet", verify="none", html=page)
    assert len(pictures(page.read_text())) == 1
    assert "as many pictures" in page.read_text()


def test_a_page_of_leaks(tmp_path: Path) -> None:
    train = write_gallery(tmp_path / "train", [0, 255, 7])
    test = write_gallery(tmp_path / "test", [64, 64, 7])
    page = tmp_path / "page.html"
    schn_ray.duplicates(
        train, tmp_path / "l.parquet", radius=1, verify="none", against=test, html=page
    )
    html = page.read_text()
    assert pictures(html) == ["002", "002", "000", "000"]  # the nearest first
    assert html.index("same code") < html.index("1 bit<")
    assert "2 of 3 images have an image of near code among the 3" in html
