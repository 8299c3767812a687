"""Of equal distances or scores, rows of the query's own bytes come first, against a plain sort."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.gallery_codes import Codes, draw_ids, write_codes

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.index import contents
from schn_ray.retrieval.index.build import rewrite_index, write_index
from schn_ray.retrieval.index.index import open_index
from schn_ray.retrieval.index.union import open_union
from schn_ray.retrieval.queries import Queries, content_digest, id_queries
from schn_ray.retrieval.search import SearchLimits, search_codes

BITS, ROWS = 12, 300


class Gallery:
    """Images that are copies of a few, and codes that tie; one copy in ten has another code."""

    def __init__(self, folder: Path, rows: int = ROWS) -> None:
        rng = np.random.default_rng(4)
        self.ids = draw_ids(rng, rows)
        image = rng.integers(0, 40, rows)
        code_of_image = rng.integers(0, 4, 40)
        moved = np.where(rng.random(rows) < 0.1, rng.integers(1, BITS, rows), 0)
        values = code_of_image[image] ^ (1 << moved) ^ 1
        self.codes: Codes = values.astype("<u2")[:, None].view(np.uint8)
        self.images = [b"image %d" % number for number in image]
        self.sha256 = [hashlib.sha256(data).digest() for data in self.images]
        self.folder = folder

    def write(self, name: str, rows: np.ndarray, relaxed: np.ndarray | None = None) -> Path:
        return write_codes(
            self.folder / name,
            [self.ids[row] for row in rows],
            self.codes[rows],
            BITS,
            relaxed=relaxed,
            sha256=[self.sha256[row] for row in rows],
        )

    def index(self, name: str, rows: np.ndarray) -> Path:
        if not (self.folder / name).exists():
            write_index(self.write(f"codes-{name}", rows), self.folder / name)
        return self.folder / name

    def expected(self, row: int, key: np.ndarray) -> list[str]:
        """Sort all ids by key, then other bytes than the row's, then id."""
        other = np.array([data != self.images[row] for data in self.images])
        order = sorted(range(len(key)), key=lambda i: (key[i], other[i], self.ids[i].encode()))
        return [self.ids[i] for i in order]

    def distances(self, row: int) -> np.ndarray:
        return np.bitwise_count(self.codes ^ self.codes[row]).sum(axis=1)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


def one(gallery: Gallery) -> list[Path]:
    return [gallery.index("one", np.arange(ROWS))]


def halves(gallery: Gallery) -> list[Path]:
    return [gallery.index(f"half-{h}", np.arange(ROWS)[h::2]) for h in range(2)]


def changed(gallery: Gallery) -> list[Path]:
    index = gallery.index("changed", np.arange(100, ROWS))
    rewrite_index(index, gallery.write("more", np.arange(150)), gallery.ids[100:150])
    return [index]


@pytest.mark.parametrize("indexes_of", [one, halves, changed])
def test_what_has_the_query_s_bytes_is_first_of_its_ties(
    gallery: Gallery, indexes_of: Callable[[Gallery], list[Path]]
) -> None:
    paths = indexes_of(gallery)
    index = open_union(paths)
    rows = np.arange(0, ROWS, 29)
    relaxed = np.unpackbits(gallery.codes[rows], axis=1, count=BITS, bitorder="little") - 0.5
    names = [""] * len(rows)
    queries = Queries(
        names,
        names,
        gallery.codes[rows],
        np.full(len(rows), -1),
        relaxed.astype(np.float32),
        contents=np.stack([content_digest(gallery.images[row]) for row in rows]),
    )
    not_first = 0
    for k in (1, 7, 250, None):
        for radius in (None, 0, 2):
            for rescore in (None, "query"):
                if k is None and radius is None:
                    continue
                results = search_codes(index, queries, SearchLimits(k, radius, rescore))
                for row, result in zip(rows, results, strict=True):
                    key = gallery.distances(row)  # equal |q_i|: the score orders as distances do
                    near = ROWS if radius is None else int((key <= radius).sum())
                    expected = gallery.expected(row, key)[:near][:k]
                    assert [hit.id for hit in result.hits] == expected
                    not_first += expected[0] != min(
                        (gallery.ids[i] for i in np.flatnonzero(key == 0)), key=str.encode
                    )
    assert not_first > 20  # by ids alone, others would be first


def test_more_like_a_row_begins_with_its_copies(gallery: Gallery) -> None:
    index = open_union(one(gallery))
    for row in range(0, ROWS, 17):
        (result,) = search_codes(index, id_queries(index, [gallery.ids[row]]), SearchLimits(9))
        expected = gallery.expected(row, gallery.distances(row))
        expected.remove(gallery.ids[row])
        assert [hit.id for hit in result.hits] == expected[:9]


def test_what_does_not_pass_a_filter_is_not_put_first(gallery: Gallery) -> None:
    index = open_union(halves(gallery)).where("id < '2'")
    passing = {id for id in gallery.ids if id.encode() < b"2"}
    rows = [row for row in range(0, ROWS, 7) if gallery.ids[row] not in passing]
    queries = id_queries(index, [gallery.ids[row] for row in rows])
    left_out = 0
    for row, result in zip(rows, search_codes(index, queries, SearchLimits(5)), strict=True):
        ranked = gallery.expected(row, gallery.distances(row))
        assert [hit.id for hit in result.hits] == [id for id in ranked if id in passing][:5]
        left_out += sum(id not in passing for id in ranked[1:5])
    assert left_out > 10


@pytest.mark.parametrize(
    "limits", [SearchLimits(5), SearchLimits(5, 1), SearchLimits(5, None, "query")]
)
def test_a_gallery_of_queries(tmp_path: Path, gallery: Gallery, limits: SearchLimits) -> None:
    relaxed = np.unpackbits(gallery.codes, axis=1, count=BITS, bitorder="little") - 0.5
    queries = gallery.write(f"queries-{tmp_path.name}", np.arange(ROWS), relaxed.astype(np.float32))
    search_gallery(halves(gallery), queries, tmp_path / "matches", limits)
    ids = {}
    for part in sorted((tmp_path / "matches").glob("*.parquet")):
        ids |= {row["query"]: row["ids"] for row in pq.read_table(part).to_pylist()}
    for row in range(0, ROWS, 7):
        expected = gallery.expected(row, gallery.distances(row))[:5]
        assert ids[gallery.ids[row]] == expected


def test_a_damaged_digest_is_an_error(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path, 20)
    path = gallery.index("index", np.arange(20))
    for name in (contents.CONTENTS, contents.BY_CONTENT):
        (file,) = path.glob(f"*/{name}")
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        index = open_index(path)
        with pytest.raises(SchnRayError, match=f"{name} is damaged"):
            index.same_contents(index.contents(np.arange(20)))
        file.write_bytes(whole[:-1])
        with pytest.raises(SchnRayError, match=f"{name} is damaged"):
            open_index(path)
        file.write_bytes(whole)


def test_codes_without_digests_make_an_index_without(tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes", ["a", "b"], np.zeros((2, 1), np.uint8), 8)
    write_index(codes, tmp_path / "index")
    assert not list((tmp_path / "index").glob("*/*content*"))
    index = open_index(tmp_path / "index")
    assert not index.contents(np.arange(2)).any()
    (result,) = search_codes(index, id_queries(index, ["b"]), SearchLimits(1))
    assert [hit.id for hit in result.hits] == ["a"]
