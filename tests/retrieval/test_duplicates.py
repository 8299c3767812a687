"""Groups of near-duplicates, and leaks between galleries, against all pairs compared one by one."""

import os
from pathlib import Path
from typing import Literal

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.gallery_codes import (
    Codes,
    draw_clustered,
    draw_codes,
    draw_ids,
    make_index,
    write_codes,
)
from support.trials import takes_minutes
from support.users import Run

import schn_ray as face
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.retrieval.duplicates import bands, connected, groups, nearest
from schn_ray.retrieval.duplicates.bands import Band, choose_bands, word_view
from schn_ray.retrieval.duplicates.connected import connected_labels
from schn_ray.retrieval.duplicates.groups import find_duplicates
from schn_ray.retrieval.duplicates.leaks import find_leaks
from schn_ray.retrieval.duplicates.partitions import find_duplicates_in_parts


def distances_to(codes: Codes, code: Codes) -> np.ndarray:
    return np.bitwise_count(codes ^ code).sum(axis=1)


def by_all_pairs(ids: list[str], codes: Codes, radius: int) -> list[list[str]]:
    """Return the groups, each in the order of ids, in the order of their first ids."""
    graph = nx.Graph()
    for first in range(len(ids)):
        near = np.flatnonzero(distances_to(codes, codes[first]) <= radius)
        graph.add_edges_from((ids[first], ids[second]) for second in near if second != first)
    return sorted(sorted(group) for group in nx.connected_components(graph))


def groups_in(file: Path) -> list[list[str]]:
    groups: list[list[str]] = []
    for row in pq.read_table(file).to_pylist():
        if row["group"] == len(groups):
            groups.append([])
        groups[row["group"]].append(row["id"])  # rows of a group stand together
        assert row["uri"] == f"file:{row['id']}"
    return groups


@pytest.mark.parametrize(("bits", "radius"), [(3, 1), (12, 2), (32, 4), (64, 0), (100, 3)])
def test_groups_equal_all_pairs(tmp_path: Path, bits: int, radius: int) -> None:
    rng = np.random.default_rng([bits, radius])
    flips = 1.2 * radius / bits if bits > 12 else 0.02
    codes = np.concatenate(
        [draw_clustered(rng, 250, bits, 12, flips / 2), draw_codes(rng, 50, bits, 50)]
    )
    ids = draw_ids(rng, len(codes))
    path = write_codes(tmp_path / "codes", ids, codes, bits)
    counted = find_duplicates(path, radius, tmp_path / "groups.parquet")
    expected = by_all_pairs(ids, codes, radius)
    assert groups_in(tmp_path / "groups.parquet") == expected
    assert (counted.groups, counted.rows) == (len(expected), 300)
    assert counted.in_groups == sum(map(len, expected))
    assert counted.largest == max(map(len, expected), default=0)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    code_of = dict(zip(ids, codes, strict=True))
    for row in pq.read_table(tmp_path / "groups.parquet").to_pylist():
        first = code_of[expected[row["group"]][0]]
        assert row["distance"] == distances_to(code_of[row["id"]][None], first)[0]
    # the same by parts and partitions, as workers do it
    partitioned = tmp_path / "partitioned.parquet"
    assert find_duplicates_in_parts(path, radius, partitioned, partition_rows=70) == counted
    assert pq.read_table(partitioned).equals(pq.read_table(tmp_path / "groups.parquet"))


def distinct(codes: Codes) -> Codes:
    return np.unique(codes, axis=0)


def draw_planted(rng: np.random.Generator, n: int, bits: int, radius: int) -> Codes:
    """Draw random codes, and for a third of them a code 0 to radius + 1 bits away."""
    codes = draw_clustered(rng, n, bits, n, 0)
    third = n // 3
    ones = np.unpackbits(codes[:third], axis=1, count=bits, bitorder="little")
    for row in ones:
        flipped = rng.choice(bits, rng.integers(0, min(radius + 2, bits)), replace=False)
        row[flipped] ^= 1
    codes[-third:] = np.packbits(ones, axis=1, bitorder="little")
    return codes


def draw_ball(rng: np.random.Generator, n: int, bits: int, radius: int) -> Codes:
    """Draw codes that are all within a radius of each other."""
    ones = np.zeros((n, bits), np.uint8)
    for row in ones:
        row[rng.choice(bits, radius // 2, replace=False)] = 1
    return np.packbits(ones, axis=1, bitorder="little")


def draw_constant(rng: np.random.Generator, n: int, bits: int) -> Codes:
    """Draw codes that differ in their last 16 bits only, as a collapsed training makes them."""
    codes = np.zeros((n, bits // 8), np.uint8)
    codes[:, -2:] = rng.integers(0, 256, (n, 2))
    return codes


def same_partition(labels: np.ndarray, codes: Codes, radius: int) -> bool:
    """Tell whether labels are the components of the graph of neighbours, by a flood fill."""
    words = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8))).view(np.uint64)
    expected, left = np.empty(len(codes), np.int64), np.ones(len(codes), np.bool_)
    for seed in range(len(codes)):
        reached = [seed] if left[seed] else []
        left[seed] = False
        while reached:
            row = reached.pop()
            expected[row] = seed
            near = left & (np.bitwise_count(words ^ words[row]).sum(axis=1) <= radius)
            left[near] = False
            reached.extend(np.flatnonzero(near).tolist())
    pairs = np.unique(np.stack([expected, labels]), axis=1).shape[1]
    return pairs == len(np.unique(expected)) == len(np.unique(labels))


def galleries(n: int, bits: int, radius: int) -> dict[str, Codes]:
    rng = np.random.default_rng([bits, radius])
    spread = 0.4 * radius / bits
    drawn = {
        "random": draw_clustered(rng, n, bits, n, 0),
        "planted": draw_planted(rng, n, bits, radius),
        "clustered": draw_clustered(rng, n, bits, 10, spread),
        "ball": draw_ball(rng, n, bits, max(2, radius)),
        "collapsed": draw_constant(rng, n, bits),
        "one": np.zeros((1, bits // 8), np.uint8),
    }
    return {name: distinct(codes) for name, codes in drawn.items()}


SIZES = [(64, radius) for radius in range(11)] + [(256, 31)]


@pytest.mark.parametrize(("bits", "radius"), SIZES)
def test_components_equal_all_pairs(bits: int, radius: int) -> None:
    for name, codes in galleries(400, bits, radius).items():
        assert same_partition(connected_labels(codes, bits, radius), codes, radius), name


@takes_minutes
@pytest.mark.parametrize(("bits", "radius"), SIZES)
def test_components_of_20000_codes_equal_all_pairs(bits: int, radius: int) -> None:
    for name, codes in galleries(20_000, bits, radius).items():
        assert same_partition(connected_labels(codes, bits, radius), codes, radius), name


def plan(bits: int, radius: int, count: int, width: int) -> list[Band]:
    """Return bands as ``choose_bands`` would for some size of gallery."""
    cuts = np.linspace(0, bits, count + 1).astype(int).tolist()
    thresholds = [(radius + 1) // count - 1 + (i < (radius + 1) % count) for i in range(count)]
    return [
        Band(low, high, min(high - low, width if threshold else 32), threshold)
        for low, high, threshold in zip(cuts[:-1], cuts[1:], thresholds, strict=True)
    ]


@pytest.mark.parametrize("width", [3, 7])
@pytest.mark.parametrize(
    ("bits", "radius", "count"),
    [
        (64, 1, 2),
        (64, 4, 2),
        (64, 4, 5),
        (64, 9, 3),
        (100, 7, 8),
        (256, 31, 16),
        (20, 4, 3),
        (16, 3, 4),
    ],
)
def test_any_bands_and_small_blocks(
    bits: int, radius: int, count: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands_of_test = plan(bits, radius, count, width)
    assert sum(band.threshold + 1 for band in bands_of_test) == radius + 1
    for module in (connected, nearest):
        monkeypatch.setattr(module, "choose_bands", lambda *_: bands_of_test)
        monkeypatch.setattr(module, "SHIFTED", 3 * (width - 2))
        monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 300)
        monkeypatch.setattr(module, "_AT_ONCE", 7)
    for name, value in (("_SEEDS", 1), ("_LARGE", 6), ("_MANY", 2)):
        monkeypatch.setattr(connected, name, value)
    rng = np.random.default_rng([bits, radius, count, width])
    sparse = distinct(draw_planted(rng, 120, bits, radius))
    dense = distinct(draw_clustered(rng, 160, bits, 6, 0.5 * radius / bits))
    for codes in (sparse, dense):
        assert same_partition(connected_labels(codes, bits, radius), codes, radius)
        assert_nearest(rng, codes[::2], codes[1::2], bits, radius)


def assert_nearest(
    rng: np.random.Generator, codes: Codes, others: Codes, bits: int, radius: int
) -> None:
    ranks = rng.permutation(len(others)).astype(np.int64)
    rank, distance = nearest.nearest_within(codes, others, ranks, bits, radius)
    for row, code in enumerate(codes):
        to_all = distances_to(others, code)
        near = sorted((d, r) for d, r in zip(to_all, ranks, strict=True) if d <= radius)
        assert (distance[row], rank[row]) == (near[0] if near else (-1, -1))


@pytest.mark.parametrize(("bits", "radius"), [(64, 0), (64, 3), (64, 10), (256, 31), (12, 12)])
def test_nearest_in_another_gallery(bits: int, radius: int) -> None:
    rng = np.random.default_rng([bits, radius])
    codes = draw_clustered(rng, 300, bits, 60, 0.3 * radius / bits)
    assert_nearest(rng, distinct(codes[:150]), distinct(codes[150:]), bits, radius)


def test_large_galleries_get_bands_that_cost_less_than_all_pairs() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (1000, 8)).astype(np.uint8)
    words = np.broadcast_to(word_view(codes[:1]), (10**7, 1))  # only their number counts
    assert len(choose_bands(words, 64, 2)) == 3
    assert all(band.threshold == 0 for band in choose_bands(words, 64, 2))
    assert 1 < len(choose_bands(words, 64, 10)) < 11
    assert bands.choose_bands(word_view(codes), 64, 31) == [Band(0, 64, 0, 0)]
    for radius in range(64):
        chosen = choose_bands(words, 64, radius)
        if chosen != [Band(0, 64, 0, 0)]:
            assert sum(band.threshold + 1 for band in chosen) == radius + 1
        assert [band.low for band in chosen] == [0, *(band.high for band in chosen[:-1])]
        assert chosen[-1].high == 64


def test_rows_a_few_at_a_time_and_from_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    codes, ids = draw_clustered(rng, 400, 64, 40, 0.02), draw_ids(rng, 400)
    make_index(tmp_path, ids, codes, 64)
    monkeypatch.setattr(groups, "_ROWS_AT_ONCE", 7)
    find_duplicates(tmp_path / "index", 2, tmp_path / "groups.parquet")
    expected = by_all_pairs(ids, codes, 2)
    assert len(expected) > 10
    assert groups_in(tmp_path / "groups.parquet") == expected


def test_a_chain_is_one_group(tmp_path: Path) -> None:
    codes = np.array([[0, 0], [1, 0], [3, 0], [7, 0], [255, 255]], np.uint8)
    find_duplicates(write_codes(tmp_path / "c", list("edcba"), codes, 16), 1, tmp_path / "g")
    assert groups_in(tmp_path / "g") == [["b", "c", "d", "e"]]
    assert pq.read_table(tmp_path / "g")["distance"].to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize("keep", [None, "best"])
def test_a_gallery_without_near_duplicates_has_no_groups(
    tmp_path: Path, keep: Literal["best"] | None
) -> None:
    codes = np.array([[0], [15], [240]], np.uint8)
    path = write_codes(tmp_path / "codes", ["a", "b", "c"], codes, 8)
    counts = find_duplicates(path, 1, tmp_path / "groups.parquet", keep)
    assert (counts.groups, counts.in_groups, counts.largest) == (0, 0, 0)
    assert counts.removable == (None if keep is None else 0)
    assert pq.read_table(tmp_path / "groups.parquet").num_rows == 0


def test_leaks_name_the_nearest_of_the_other_gallery(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    codes, ids = draw_clustered(rng, 260, 24, 30, 0.04), draw_ids(rng, 260)
    train = write_codes(tmp_path / "train", ids[:160], codes[:160], 24)
    make_index(tmp_path / "test", ids[160:], codes[160:], 24)
    counted = find_leaks(train, tmp_path / "test" / "index", 2, tmp_path / "leaks.parquet")
    expected = []
    for id, code in sorted(zip(ids[:160], codes[:160], strict=True), key=lambda row: row[0]):
        to_all = zip(distances_to(codes[160:], code).tolist(), ids[160:], strict=True)
        near = min((d, other.encode(), other) for d, other in to_all)
        if near[0] <= 2:
            expected.append((id, f"file:{id}", near[0], near[2], f"file:{near[2]}"))
    expected.sort(key=lambda row: row[0].encode())
    rows = [tuple(row.values()) for row in pq.read_table(tmp_path / "leaks.parquet").to_pylist()]
    assert rows == expected
    assert 20 < len(rows) < 160
    equal = sum(row[2] == 0 for row in expected)
    assert (counted.matched, counted.equal) == (len(rows), equal)
    assert (counted.rows, counted.against) == (160, 100)
    asked = {"radius": 2, "verify": "none", "against": tmp_path / "test" / "codes"}
    found = face.duplicates(train, tmp_path / "none", **asked)
    assert found.counts == counted


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Write six photos: of the first four, of one code, one is gone and two are equally large."""
    paths = []
    for number, side in enumerate((20, 40, 40, 30, 50, 10)):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (side, side), (number, 0, 0)).save(path)
        os.utime(path, (2e9 - number, 1e9 - number))
        paths.append(path)
    paths[3].unlink()
    return paths


def codes_of_photos(folder: Path, photos: list[Path]) -> Path:
    codes = np.array([[0], [0], [1], [0], [240], [15]], np.uint8)
    ids = [path.name for path in photos]
    return write_codes(folder, ids, codes, 8, uris=[str(path) for path in photos])


def test_the_largest_then_oldest_image_is_to_keep(
    tmp_path: Path, photos: list[Path], schn_ray: Run
) -> None:
    codes = codes_of_photos(tmp_path / "codes", photos)
    schn_ray("index", codes, "--out", tmp_path / "index")
    for workers in (None, 1):  # the same lists
        out = tmp_path / f"{workers}.parquet"
        if workers:
            find_duplicates_in_parts(codes, 1, out, "best")
        else:
            asked = ("duplicates", codes, "-r", 1, "--out", out, "--keep", "best")
            answer = schn_ray(*asked, "--verify", "none")
            assert answer.code == 0, answer.err
            assert "3 of them to remove; 1 could not be read" in answer.out
        rows = {row.pop("id"): row for row in pq.read_table(out).to_pylist()}
        assert sorted(rows) == ["0.png", "1.png", "2.png", "3.png"]
        assert [id for id, row in rows.items() if row["keep"]] == ["2.png"]  # older than 1.png
        assert rows["3.png"]["width"] is rows["3.png"]["modified"] is None
        assert (rows["1.png"]["width"], rows["1.png"]["height"]) == (40, 40)
        assert rows["1.png"]["bytes"] == photos[1].stat().st_size
        assert rows["1.png"]["modified"].timestamp() == 1e9 - 1
        assert rows["0.png"]["distance"] == 1
        assert (tmp_path / f"{workers}.keep.txt").read_text() == "2.png\n"
        listed = (tmp_path / f"{workers}.remove-paths.txt").read_text().splitlines()
        assert listed == [str(photos[i]) for i in (0, 1, 3)]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    for ids in ("None.remove.txt", "None.parquet"):
        changed = tmp_path / f"of-{ids}"
        schn_ray("index", codes, "--out", changed)
        assert schn_ray("index", changed, "--remove", tmp_path / ids).code == 0
        assert read_manifest(changed, "index").counts["rows"] == 3
        assert face.open_index(changed).find("2.png") == 0


def test_lists_are_refused_where_they_would_mislead(tmp_path: Path, photos: list[Path]) -> None:
    codes = codes_of_photos(tmp_path / "codes", photos)
    find_duplicates(codes, 1, tmp_path / "g.parquet", "best")
    with pytest.raises(SchnRayError, match=r"g\.keep\.txt is a list of other groups"):
        find_duplicates(codes, 0, tmp_path / "g.parquet")
    broken = write_codes(tmp_path / "broken", ["a", "b\nc"], np.zeros((2, 1), np.uint8), 8)
    with pytest.raises(SchnRayError, match="line break"):
        find_duplicates(broken, 0, tmp_path / "b.parquet", "best")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("b.", ".b."))]


def test_what_cannot_be_grouped(tmp_path: Path, schn_ray: Run) -> None:
    with pytest.raises(SchnRayError, match="wanted a codes directory"):
        find_duplicates(tmp_path / "none", 0, tmp_path / "g")
    codes = write_codes(tmp_path / "codes", ["a"], np.zeros((1, 1), np.uint8), 8, parts=1)
    with pytest.raises(SchnRayError, match="radius -1"):
        find_duplicates(codes, -1, tmp_path / "g")
    with pytest.raises(SchnRayError, match="is a directory"):
        find_duplicates(codes, 0, tmp_path)
    with pytest.raises(SchnRayError, match="keep is 'first'"):
        find_duplicates(codes, 0, tmp_path / "g", "first")  # type: ignore[arg-type]
    twice = write_codes(tmp_path / "twice", ["a", "b", "a"], np.zeros((3, 1), np.uint8), 8)
    for group in (find_duplicates, find_duplicates_in_parts):
        with pytest.raises(SchnRayError, match="'a'; ids must be unique"):
            group(twice, 0, tmp_path / "g")
    for offset in (60, -9):  # in a code, and in the table of contents
        damaged = write_codes(tmp_path / f"at{offset}", list("abc"), np.eye(3, 1, dtype="u1"), 8)
        part = bytearray((damaged / "data" / "part-00001.parquet").read_bytes())
        part[offset] ^= 255
        (damaged / "data" / "part-00001.parquet").write_bytes(part)
        for group in (find_duplicates, find_duplicates_in_parts):
            with pytest.raises(SchnRayError, match=r"part-00001.parquet|differs from its manifest"):
                group(damaged, 0, tmp_path / "g")
    make_index(tmp_path / "of", ["a"], np.zeros((1, 1), np.uint8), 8, parts=1)
    with pytest.raises(SchnRayError, match="is an index; give the codes"):
        find_duplicates_in_parts(tmp_path / "of" / "index", 0, tmp_path / "g")
    other = write_codes(tmp_path / "other", ["a"], np.zeros((1, 2), np.uint8), 16, parts=1)
    common = ("duplicates", codes, "--out", tmp_path / "g")
    for options, message in (
        (("--against", other), "another model"),
        (("--against", codes, "--keep", "best"), "leave --keep and --workers out"),
        (("--html", tmp_path), "is a directory"),
        (("--keep", "worst"), "--keep"),
        (("-r", "-1"), "greater than or equal to 0"),
    ):
        answer = schn_ray(*common, *options)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not (tmp_path / "g").exists()
    (tmp_path / "ids.parquet").write_bytes(b"no Parquet")
    answer = schn_ray("index", tmp_path / "of" / "index", "--remove", tmp_path / "ids.parquet")
    assert (answer.code, "not a Parquet file" in answer.err) == (2, True)
