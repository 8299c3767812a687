"""The verbs on codes under every fault of ``support.faults``; a verb is a line of a table."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from support.faults import (
    Verb,
    check_damage,
    check_full_disk,
    check_kills,
    check_signals,
    check_two,
)
from support.gallery_codes import draw_clustered, make_index, write_codes

from schn_ray.report.map import write_map
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.duplicates.groups import find_duplicates
from schn_ray.retrieval.index import inverted_lists
from schn_ray.retrieval.index.build import rewrite_index, write_index
from schn_ray.retrieval.map import layout
from schn_ray.retrieval.search import SearchLimits

BITS, ROWS = 32, 400
IDS = [f"{row:04}" for row in range(ROWS)]


def search(root: Path, out: Path) -> None:
    search_gallery([root / "index"], root / "more", out / "matches", SearchLimits(k=3))


def add(root: Path, out: Path) -> None:
    rewrite_index(out / "index", add=root / "more")


def remove(_: Path, out: Path) -> None:
    rewrite_index(out / "index", remove=IDS[:50])


def draw_map(root: Path, out: Path) -> None:
    layout._PHASES = ((2, 12.0, 0.5),)  # of 450, which take a second
    write_map(root / "index", out / "map.html", None, 2, 300, 0, 0)


VERBS = {
    "index": Verb(lambda root, out: write_index(root / "codes", out / "index"), ("codes",)),
    "add": Verb(add, ("more",), changes=("index",)),
    "remove": Verb(remove, changes=("index",)),
    "search": Verb(search, ("index", "more")),
    "duplicates": Verb(
        lambda root, out: find_duplicates(root / "codes", 2, out / "groups.parquet"), ("codes",)
    ),
    "duplicates of an index": Verb(
        lambda root, out: find_duplicates(root / "index", 2, out / "groups.parquet"), ("index",)
    ),
    "map": Verb(draw_map, ("index",)),
}


def each(quick: Sequence[str], leave_out: Sequence[str] = ()) -> pytest.MarkDecorator:
    """Parametrise a test with the verbs; all but the quick ones are slow.

    Of verbs that write alike the costlier tests leave one out.
    """
    names = (name for name in VERBS if name not in leave_out)
    params = [pytest.param(name, marks=[pytest.mark.slow][name in quick :]) for name in names]
    return pytest.mark.parametrize("name", params)


@pytest.fixture(scope="module", autouse=True)
def lists() -> Iterator[pytest.MonkeyPatch]:
    """Indexes of few codes have lists, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverted_lists, "FEWEST", 100)
        patch.setattr(inverted_lists, "_MOST_LOOKED_AT", 9)
        yield patch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, lists: pytest.MonkeyPatch) -> Path:
    """Codes, their index, and more codes."""
    folder = tmp_path_factory.mktemp("gallery")
    codes = draw_clustered(np.random.default_rng(0), ROWS + 40, BITS)
    make_index(folder, IDS, codes[:ROWS], BITS)
    write_codes(folder / "more", [f"more {row}" for row in range(40)], codes[ROWS:], BITS)
    return folder


@each(quick=["duplicates of an index"], leave_out=["add"])
def test_killed_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_kills(VERBS[name], root, tmp_path) > 3


@each(quick=["duplicates of an index"])
def test_a_signal_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_signals(VERBS[name], root, tmp_path, every=5) > 1


@each(quick=["duplicates of an index"], leave_out=["remove", "map"])
def test_a_full_disk_at_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_full_disk(VERBS[name], root, tmp_path) > 3


@each(quick=[], leave_out=["map"])
def test_damage_of_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_damage(VERBS[name], root, tmp_path) > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("index", "index"),
        ("add", "remove"),
        ("remove", "add"),
        ("duplicates", "duplicates"),
    ],
)
def test_two_at_once(first: str, second: str, root: Path, tmp_path: Path) -> None:
    assert check_two(VERBS[first], VERBS[second], root, tmp_path) > 0
