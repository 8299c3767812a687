"""A gallery searched by Ray workers, and the search page behind Ray Serve."""

import http.client
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray import serve
from support.gallery_codes import draw_clustered, draw_ids, make_index, write_codes
from support.processes import free_port
from support.service import write_gallery
from support.users import Run

from schn_ray.cluster.serve import start
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.config import ServeConfig
from schn_ray.retrieval.search import SearchLimits

pytestmark = pytest.mark.usefixtures("cluster")


def test_workers_find_what_one_process_finds(schn_ray: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes, ids = draw_clustered(rng, 400, 24, 6), draw_ids(rng, 400)
    make_index(tmp_path, ids[:300], codes[:300], 24)
    make_index(tmp_path / "more", ids[300:], codes[300:], 24)
    relaxed = (np.unpackbits(codes[:90], axis=1, bitorder="little") - 0.5) * rng.random((90, 24))
    queries = write_codes(
        tmp_path / "queries", ids[:90], codes[:90], 24, 5, relaxed=relaxed.astype("f4")
    )
    indexes = [tmp_path / "index", tmp_path / "more" / "index"]
    asked = ("search", indexes[0], "--also", indexes[1], "--queries", queries)
    answer = schn_ray(*asked, "--out", tmp_path / "ray", "-k", 6, "--workers", 2, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["counts"]["queries"] == 90
    rescored = (*asked, "--out", tmp_path / "scored", "-k", 6, "--rescore", "query")
    assert schn_ray(*rescored, "--workers", 2).code == 0
    for by_ray, limits in (("ray", SearchLimits(6)), ("scored", SearchLimits(6, None, "query"))):
        search_gallery(indexes, queries, tmp_path / f"{by_ray}-local", limits)
        parts = sorted(path.name for path in (tmp_path / f"{by_ray}-local").glob("*.parquet"))
        assert len(parts) == 5
        for name in parts:
            ours, theirs = (
                pq.read_table(tmp_path / folder / name) for folder in (by_ray, f"{by_ray}-local")
            )
            assert ours.equals(theirs)
            assert ("scores" in ours.column_names) == (by_ray == "scored")
    assert "nothing to do" in schn_ray(*asked, "--out", tmp_path / "ray", "-k", 6).err


@pytest.mark.slow
def test_workers_group_as_one_process_does(schn_ray: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    codes, ids = draw_clustered(rng, 300, 64, 30, 0.03), draw_ids(rng, 300)
    path = write_codes(tmp_path / "codes", ids, codes, 64, parts=4)
    asked = ("duplicates", path, "-r", 3, "--verify", "none", "--json", "--out")
    alone = schn_ray(*asked, tmp_path / "alone.parquet")
    answer = schn_ray(*asked, tmp_path / "ray.parquet", "--workers", 2)
    assert answer.code == 0, answer.err
    counts = [json.loads(each.out) | {"path": ""} for each in (alone, answer)]
    assert counts[0] == counts[1]
    assert counts[0]["groups"] > 10
    ours, theirs = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("ray", "alone"))
    assert ours.equals(theirs)


def test_ray_serve_answers(tmp_path: Path) -> None:
    gallery = write_gallery(tmp_path)
    port = free_port()
    try:
        start(gallery / "index", gallery / "model", ServeConfig(port=port))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        photo = gallery / "photos" / "cat" / "003.png"
        connection.request("POST", "/search?k=5", photo.read_bytes())
        found = connection.getresponse()
        assert found.status == 200
        hits = json.loads(found.read())["hits"]
        assert (hits[0]["distance"], len(hits)) == (0, 5)
        assert [hit["labels"] for hit in hits[:1]] == [["cat"]]
        paths = {"/image/cat/003.png": 200, "/original/cat/003.png": 200, "/openapi.json": 200}
        paths |= {"/image/..%2fmodel": 404, "/": 200, "/?id=x": 200, "/search?k=x": 405}
        for path, status in paths.items():
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
    finally:
        serve.shutdown()
