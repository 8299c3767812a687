"""The suite of the field's data sets: it reads, says what it needs, and runs on small stand-ins."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.makers import jpeg, photos, write

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import load_settings
from schn_ray.data.config import PrepareConfig
from schn_ray.data.splits.protocols import PROTOCOLS, find_protocol
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.models.backbones.build import require_backbone
from schn_ray.models.embed import EmbedConfig
from schn_ray.suites.suite import read_suite

SETS = ("nuswide", "coco", "mirflickr", "imagenet100")
ROWS = 48


def test_every_set_has_the_protocol_and_the_metric_of_published_tables() -> None:
    suite = read_suite("published-sets", dict.fromkeys(SETS, "somewhere"))
    assert set(suite.data) == set(SETS)
    ks = load_settings(EvaluateConfig, base=suite.evaluate).ks
    ranks = {}
    for name, data in suite.data.items():
        config = load_settings(PrepareConfig, base=data.prepare)
        assert config.protocol.startswith(name)
        assert config.validation_share == 0  # training rows are as many as the protocol has
        ranks[name] = find_protocol(config.protocol).published_rank
        assert ranks[name] in ks
        assert data.embed is not None
        require_backbone(load_settings(EmbedConfig, base=data.embed).backbone)
    assert ranks == {"nuswide": 5000, "coco": 5000, "mirflickr": 5000, "imagenet100": 1000}


def test_without_data_it_says_what_each_source_has_to_be() -> None:
    with pytest.raises(SchnRayError) as refused:
        read_suite("published-sets")
    message = str(refused.value)
    for name, part in zip(
        SETS,
        (
            "ImageList/Imagelist.txt",
            "instances_train2017.json",
            "mirflickr25k_annotations_v080/",
            "database.txt",
        ),
        strict=True,
    ):
        (line,) = (line for line in message.splitlines() if f"--data {name}=PATH" in line)
        assert part in line


def nuswide(root: Path) -> Path:
    names = [f"zoo/{row:04}_{row}.jpg" for row in range(ROWS)]
    photos(root / "Flickr", *names)
    concepts = {"sky": 2, "sea": 3, "cat": 5, "rare": ROWS}  # the last is of one image
    labels = {
        f"Groundtruth/AllLabels/Labels_{name}.txt": "".join(
            f"{int(row % step == 0)}\n" for row in range(ROWS)
        )
        for name, step in concepts.items()
    }
    lists = {"ImageList/Imagelist.txt": "".join(f"{n}\n".replace("/", "\\") for n in names)}
    return write(root, dict(lists | labels))


def coco(root: Path) -> Path:
    steps = {1: 2, 2: 3, 90: 5}
    categories = [{"id": number, "name": f"thing {number}"} for number in steps]
    for part, ids in (("train2017", range(1, ROWS)), ("val2017", range(ROWS, ROWS + 12))):
        names = [f"{i:012}.jpg" for i in ids]
        write(root / part, {name: jpeg(i) for i, name in zip(ids, names, strict=True)})
        values = {
            "images": [{"id": i, "file_name": n} for i, n in zip(ids, names, strict=True)],
            "annotations": [
                {"image_id": i, "category_id": c} for i in ids for c in steps if i % steps[c] == 0
            ],
            "categories": categories,
        }
        write(root / "annotations", {f"instances_{part}.json": json.dumps(values)})
    return root


def mirflickr(root: Path) -> Path:
    photos(root / "mirflickr", *(f"im{i}.jpg" for i in range(1, ROWS + 1)))
    concepts = {"sea": 2, "sky": 3, "sea_r1": 4}
    return write(
        root,
        {
            f"mirflickr25k_annotations_v080/{name}.txt": "".join(
                f"{i}\n" for i in range(step, ROWS + 1, step)
            )
            for name, step in concepts.items()
        },
    )


def imagenet100(root: Path) -> Path:
    photos(root / "images", *(f"{row}.jpg" for row in range(ROWS)))
    for row in (0, 1):  # two queries are in the database, too, under other names
        (root / f"images/{ROWS - 1 - row}.jpg").write_bytes(
            (root / f"images/{row}.jpg").read_bytes()
        )
    lines = [f"images/{row}.jpg {int(row % 2 == 0)} {row % 2}\n" for row in range(ROWS)]
    parts = {
        "test.txt": lines[:8],
        "train.txt": lines[8:24],
        "database.txt": lines[8:],
    }
    return write(root, {name: "".join(part) for name, part in parts.items()})


MAKERS: dict[str, Callable[[Path], Path]] = {
    "nuswide": nuswide,
    "coco": coco,
    "mirflickr": mirflickr,
    "imagenet100": imagenet100,
}
SMALL: dict[str, dict[str, Any]] = {  # of the protocols: their numbers alone
    "nuswide-21": {"query": 2, "train": 4, "classes": 3, "most_frequent": 3},
    "coco": {"query": 8, "train": 16, "classes": 3},
    "mirflickr": {"query": 8, "train": 16, "classes": 3},
    "imagenet100": {"classes": 2},
}


@pytest.mark.slow
def test_it_runs_unchanged_on_stand_ins_with_the_same_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, numbers in SMALL.items():
        metric = "mAP@10"  # their galleries have fewer than 1,000 rows
        small = replace(PROTOCOLS[name], counts=None, metric=metric, **numbers)
        monkeypatch.setitem(PROTOCOLS, name, small)
    result = schn_ray.benchmark(
        "published-sets",
        tmp_path / "out",
        data={name: make(tmp_path / name) for name, make in MAKERS.items()},
        settings={f"data.{name}.embed.backbone.name": "pixels:4" for name in SETS}
        | {"methods": ["lsh"], "bits": [8], "seeds": [0]},
    )
    blocks = {block.data: block for block in result.table.blocks}
    assert set(blocks) == set(SETS)
    assert (blocks["nuswide"].queries, blocks["coco"].queries) == (6, 8)
    assert (blocks["imagenet100"].queries, blocks["imagenet100"].gallery) == (8, 40)
    unlabelled = sum(row % 2 != 0 and row % 3 != 0 for row in range(1, ROWS + 1))
    assert blocks["mirflickr"].gallery == ROWS - unlabelled - 8
    text, page = result.text(), (tmp_path / "out" / "index.html").read_text()
    assert page.count('<th scope="col">mAP@10</th>') == 4
    for row in pq.read_table(tmp_path / "out" / "results.parquet").to_pylist():
        metrics = tmp_path / "out" / f"{row['run']}-evaluation" / "metrics.json"
        measured = json.loads(metrics.read_text())["map_at"]["10"]["hits"]
        assert row["map_at_published_rank"] == measured
        assert f"@10 {measured:.3f}" in text
