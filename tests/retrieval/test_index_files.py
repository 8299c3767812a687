"""What may happen to the files of an index: every damage is an error before any wrong result."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.gallery_codes import draw_clustered, draw_ids, make_index, write_codes

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST
from schn_ray.retrieval.index import inverted_lists as index_training
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.checked_files import BLOCK
from schn_ray.retrieval.index.index import Index, open_index, verify_index

FLAT = {"codes", "starts", "rows", "code_of_row", "ids.starts", "ids.text", "uris.starts"}
TEXTS = {f"column-0.{part}" for part in ("present", "starts", "text")}
COLUMNS = {"columns", "column-1.present", "column-1.values"} | TEXTS
FILES = FLAT | COLUMNS | {"uris.text", "digests", "lists", "radii"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with lists; its ids alone fill several blocks."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_training, "FEWEST", 1000)
        codes = draw_clustered(rng, 12_000, 64)
        labels, years = rng.choice(["cat", "dog"], len(codes)), rng.integers(0, 9, len(codes))
        columns = {"label": labels, "year": years}
        make_index(folder, draw_ids(rng, len(codes)), codes, 64, columns=columns)
    return folder / "index"


@pytest.fixture
def index(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "index")
    return tmp_path / "index"


def ask(index: Index) -> list[object]:
    """Ask for all that an index can tell, of rows from its whole range."""
    rows = np.linspace(0, len(index) - 1, 60).astype(np.int64)
    codes = index.codes(rows)
    found = index.search(codes, 20)
    near = index.within(codes[:10], 3)
    return [
        codes.tolist(),
        found.rows.tolist(),
        [found.ids(q) for q in range(60)],
        [found.uris(q) for q in range(60)],
        near.rows.tolist(),
        [index.find(id) for id in index.ids(rows)],
        index.where("label = 'cat' and year < 7").search(codes[:10], 20).rows.tolist(),
    ]


def answer_or_error(path: Path) -> list[object] | None:
    try:
        return ask(open_index(path))
    except SchnRayError as error:  # any other error is a failure of the test
        return None if "damaged" in str(error) else [str(error)]


def test_all_files_are_known(sound: Path) -> None:
    assert {p.name for p in (sound / "1").iterdir()} == FILES
    assert open_index(sound).info()["scan"] == "lists"
    assert verify_index(sound) == sum(p.stat().st_size for p in (sound / "1").iterdir())


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"12345678")


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, append, emptied, Path.unlink])
@pytest.mark.parametrize("name", sorted(FILES))
def test_other_sizes_are_found_on_opening(
    index: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(index / "1" / name)
    with pytest.raises(SchnRayError, match=rf"{name}.*make the index again"):
        open_index(index)


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_truncation_is_found_on_opening(index: Path, name: str) -> None:
    file = index / "1" / name
    content = file.read_bytes()
    for size in np.linspace(0, len(content) - 1, 25).astype(int).tolist():
        file.write_bytes(content[:size])
        with pytest.raises(SchnRayError, match="make the index again"):
            open_index(index)


@pytest.mark.parametrize("name", sorted(FILES))
def test_flipped_bits_never_change_an_answer(index: Path, sound: Path, name: str) -> None:
    rng, expected = np.random.default_rng(1), ask(open_index(sound))
    file = index / "1" / name
    content, errors = file.read_bytes(), 0
    for bit in rng.integers(0, 8 * len(content), 12).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        found = answer_or_error(index)
        assert found in (None, expected)
        errors += found is None
        with pytest.raises(SchnRayError, match=rf"{name}.*make the index again"):
            verify_index(index)
    assert errors or name == "codes"  # lists answer here, so few blocks of the codes are read


def test_zeroed_pages_never_change_an_answer(index: Path, sound: Path) -> None:
    expected = ask(open_index(sound))
    for name in sorted(FILES):
        file = index / "1" / name
        content = file.read_bytes()
        half = len(content) // 2
        file.write_bytes(content[:half] + bytes(len(content) - half))
        assert answer_or_error(index) in (None, expected)
        file.write_bytes(content)
    assert answer_or_error(index) == expected


def other_index(tmp_path: Path) -> Path:
    """Write an index of as many rows and distinct codes, of other codes."""
    codes = np.arange(12_000, dtype=np.uint64)
    ids = [f"other{i}" for i in range(len(codes))]
    make_index(tmp_path / "other", ids, codes.view(np.uint8).reshape(-1, 8), 64)
    return tmp_path / "other" / "index"


@pytest.mark.parametrize("name", sorted(FLAT | {"digests"}))
def test_a_file_of_another_index_is_found(index: Path, name: str, tmp_path: Path) -> None:
    expected = ask(open_index(index))
    (index / "1" / name).write_bytes((other_index(tmp_path) / "1" / name).read_bytes())
    assert answer_or_error(index) in (None, expected)
    with pytest.raises(SchnRayError, match=r"damaged|differs"):
        verify_index(index)


@pytest.mark.parametrize(
    "edit",
    [
        {"config": {"bits": 32, "model": "m0del"}},
        {"config": {"bits": "many", "model": "m0del"}},
        {"config": {"bits": 64, "model": "another"}},
        {"config": {}},
        {"counts": {"rows": 11_999, "unique_codes": 5}},
        {"counts": {}},
        {"files": {}},
        {"made_from": {"codes": "others"}},
    ],
    ids=str,
)
def test_an_edited_manifest_is_found(index: Path, edit: dict[str, object]) -> None:
    values = json.loads((index / MANIFEST).read_text())
    (index / MANIFEST).write_text(json.dumps(values | edit))
    with pytest.raises(SchnRayError, match="damaged"):
        open_index(index)


def test_a_long_range_is_checked_in_its_middle(tmp_path: Path) -> None:
    """All rows have one code: their list spans blocks of which only the ends are named."""
    n = 3 * BLOCK  # 4 bytes a row: 12 blocks
    ids = [f"{i:08}" for i in range(n)]
    make_index(tmp_path, ids, np.zeros((n, 4), np.uint8), 32)
    file = tmp_path / "index" / "1" / "rows"
    content = bytearray(file.read_bytes())
    content[6 * BLOCK + 5] ^= 1
    file.write_bytes(content)
    index = open_index(tmp_path / "index")
    assert index.search(np.zeros((1, 4), np.uint8), 5).ids(0) == ids[:5]
    with pytest.raises(SchnRayError, match="rows is damaged"):
        index.within(np.zeros((1, 4), np.uint8), 0)


def test_damaged_codes_are_not_indexed(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", ["a", "b"], np.zeros((2, 4), np.uint8), 32)
    part = codes / "data" / "part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    with pytest.raises(SchnRayError, match="differs from its manifest"):
        write_index(codes, tmp_path / "index")
