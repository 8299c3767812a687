"""Groups of near-duplicates against all pairs compared one by one."""

from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.gallery_codes import (
    Codes,
    draw_clustered,
    draw_codes,
    draw_ids,
    make_index,
    write_codes,
)

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval import duplicates
from schn_ray.retrieval.duplicates import find_duplicates


def by_all_pairs(ids: list[str], codes: Codes, radius: int) -> list[list[str]]:
    """Return the groups, each in the order of ids, in the order of their first ids."""
    graph = nx.Graph()
    for first in range(len(ids)):
        distances = np.bitwise_count(codes ^ codes[first]).sum(axis=1)
        near = np.flatnonzero(distances <= radius)
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


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("bits", [3, 12, 32, 64, 100])
def test_groups_equal_all_pairs(tmp_path: Path, bits: int, radius: int) -> None:
    rng = np.random.default_rng([bits, radius])
    flips = 1.2 * radius / bits if bits > 12 else 0.02
    codes = np.concatenate(
        [draw_clustered(rng, 250, bits, 12, flips / 2), draw_codes(rng, 50, bits, 50)]
    )
    ids = draw_ids(rng, len(codes))
    counted = find_duplicates(
        write_codes(tmp_path / "codes", ids, codes, bits), radius, tmp_path / "groups.parquet"
    )
    expected = by_all_pairs(ids, codes, radius)
    assert groups_in(tmp_path / "groups.parquet") == expected
    assert (counted.groups, counted.rows) == (len(expected), 300)
    assert counted.in_groups == sum(map(len, expected))
    assert counted.largest == max(map(len, expected), default=0)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_pairs_a_few_at_a_time_and_from_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    codes, ids = draw_clustered(rng, 400, 64, 40, 0.02), draw_ids(rng, 400)
    make_index(tmp_path, ids, codes, 64)
    for name in ("_PAIRS_AT_ONCE", "_EDGES_AT_ONCE", "_ROWS_AT_ONCE"):
        monkeypatch.setattr(duplicates, name, 7)
    find_duplicates(tmp_path / "index", 2, tmp_path / "groups.parquet")
    expected = by_all_pairs(ids, codes, 2)
    assert len(expected) > 10
    assert groups_in(tmp_path / "groups.parquet") == expected


def test_a_chain_is_one_group(tmp_path: Path) -> None:
    codes = np.array([[0, 0], [1, 0], [3, 0], [7, 0], [255, 255]], np.uint8)
    find_duplicates(write_codes(tmp_path / "c", list("edcba"), codes, 16), 1, tmp_path / "g")
    assert groups_in(tmp_path / "g") == [["b", "c", "d", "e"]]


def test_neither_codes_nor_index(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="wanted a codes directory"):
        find_duplicates(tmp_path / "none", 0, tmp_path / "g")
    codes = write_codes(tmp_path / "codes", ["a"], np.zeros((1, 1), np.uint8), 8, parts=1)
    with pytest.raises(SchnRayError, match="radius -1"):
        find_duplicates(codes, -1, tmp_path / "g")
    with pytest.raises(SchnRayError, match="is a directory"):
        find_duplicates(codes, 0, tmp_path)
