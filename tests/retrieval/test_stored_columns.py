"""Labels and folders of a store as columns of an index."""

from pathlib import Path

import numpy as np
import pytest
from support.gallery_codes import make_index, write_codes
from support.image_files import encode_image

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.index import Index, open_index

IDS = [f"{letter}/{n}.png" for letter in "ab" for n in range(4)]
OTHERS = {f"z/{n}.png": "owl" for n in range(24)}  # in the store only: a split needs some rows
CODES = np.arange(9, dtype=np.uint8)[:, None]


def store_of(folder: Path, rows: dict[str, str]) -> str:
    """Prepare images; rows: id -> labels, separated by spaces."""
    photos = folder / "photos"
    for number, id in enumerate(rows):
        (photos / id).parent.mkdir(parents=True, exist_ok=True)
        (photos / id).write_bytes(encode_image(number))
    lines = [f"{id},{labels.replace(' ', ';')}\n" for id, labels in rows.items()]
    (photos / "list.csv").write_text("path,labels\n" + "".join(lines))
    return str(schn_ray.prepare(photos / "list.csv", folder / "store", protocol="unlabelled"))


def ids_where(index: Index, condition: str) -> list[str]:
    rows = np.arange(len(index))
    return index.ids(rows[index.where(condition).passes(rows)])


def test_an_image_with_several_labels_passes_by_each(tmp_path: Path) -> None:
    store = store_of(tmp_path, dict(zip(IDS, ["cat", "cat dog", "", *["owl"] * 5], strict=True)))
    codes = write_codes(tmp_path / "codes", [*IDS, "elsewhere"], CODES, 8)
    index = open_index(schn_ray.build_index(codes, tmp_path / "index", columns=store))
    assert index.kinds == {"label": "texts"}
    assert ids_where(index, "label = 'cat'") == ["a/0.png", "a/1.png"]
    assert ids_where(index, "label != 'cat'") == IDS[3:]
    assert ids_where(index, "label is null") == ["a/2.png", "elsewhere"]
    one = store_of(tmp_path / "one", {"c/9.png": "dog"} | OTHERS)
    added = write_codes(tmp_path / "added", ["c/9.png"], CODES[:1], 8)
    schn_ray.change_index(index, add=added, columns=one)
    assert ids_where(open_index(tmp_path / "index"), "label = 'dog'") == ["a/1.png", "c/9.png"]


def test_images_without_labels_have_a_folder(tmp_path: Path) -> None:
    store = store_of(tmp_path, dict.fromkeys([*IDS, "a/deep/1.png", "top.png"], ""))
    index = make_index(tmp_path, [*IDS, "top.png"], CODES, 8)
    assert schn_ray.change_index(index, columns=store).counts["columns"] == "folder (text)"
    assert ids_where(open_index(tmp_path / "index"), "folder = 'a'") == IDS[:4]
    assert ids_where(open_index(tmp_path / "index"), "folder = ''") == ["top.png"]
    with pytest.raises(SchnRayError, match=r"a store has no column 'label'.*Columns: folder"):
        schn_ray.change_index(index, columns=store, columns_of=["label"])


def test_one_label_each_is_a_text_and_an_image_with_more_is_refused_beside_it(
    tmp_path: Path,
) -> None:
    store = store_of(tmp_path, dict(zip(IDS, ["cat", "", *["owl"] * 6], strict=True)))
    codes = write_codes(tmp_path / "codes", IDS, CODES[:8], 8)
    index = schn_ray.build_index(codes, tmp_path / "index", columns=store)
    assert open_index(index).kinds == {"label": "text"}
    assert ids_where(open_index(index), "label < 'd'") == ["a/0.png"]
    assert schn_ray.build_index(codes, index, columns=store, update=True).note  # the same
    several = store_of(tmp_path / "several", {"c/9.png": "dog cat"} | OTHERS)
    added = write_codes(tmp_path / "added", ["c/9.png"], CODES[8:], 8)
    with pytest.raises(SchnRayError, match="label is of the kind texts, in the index of the kind"):
        schn_ray.change_index(index, add=added, columns=several)
