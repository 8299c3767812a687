"""Small trees in the layouts of the makers of data sets, with real JPEG bytes and their traps."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from support.image_files import encode_image


def jpeg(number: int) -> bytes:
    return encode_image(number, (12, 8), "JPEG")


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def photos(root: Path, *names: str) -> Path:
    return write(root, {name: jpeg(number) for number, name in enumerate(names)})


def nuswide(root: Path) -> Path:
    """Backslashes, trailing spaces, carriage returns, no last newline, a title-cased concept."""
    photos(root / "Flickr", "actor/0001_2124494179.jpg", "zoo/0002_12.jpg", "zoo/0003_99.jpg")
    lists = {
        "ImageList/Imagelist.txt": "actor\\0001_2124494179.jpg \r\nzoo\\0002_12.jpg \r\n"
        "zoo\\0003_99.jpg",
        "ImageList/TrainImagelist.txt": "actor\\0001_2124494179.jpg\n",
        "Groundtruth/AllLabels/Labels_animal.txt": "0\n1 \n1\n",
        "Groundtruth/AllLabels/Labels_zebra.txt": "0\r\n0\r\n1",
        "Groundtruth/TrainTestLabels/Labels_zebra_Train.txt": "1\n",
    }
    return write(root, dict(lists))


def mirflickr(root: Path) -> Path:
    """1-based numbers, twelve images so that im10 sorts before im2 as text, a README, ``_r1``."""
    photos(root / "mirflickr", *(f"im{i}.jpg" for i in range(1, 13)))
    write(root / "mirflickr", {"doc/readme.txt": "", "meta/tags/tags1.txt": "sea\n"})
    folder = root / "mirflickr25k_annotations_v080"
    lists = {
        "sea.txt": "1\n12\r\n2 \n",
        "sea_r1.txt": "12",
        "README.txt": "Annotations of 1 to 9\n",
    }
    write(folder, dict(lists))
    return root


def coco(root: Path, **changes: Any) -> Path:
    """Category ids with gaps, an image without objects, an object twice."""
    photos(root / "train2017", "000000000009.jpg", "000000000025.jpg")
    photos(root / "val2017", "000000000139.jpg")
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    parts = {"train2017": [9, 25], "val2017": [139]}
    objects = {"train2017": [(9, 90), (9, 1), (9, 90)], "val2017": [(139, 90)]}
    for part, ids in parts.items():
        values = {
            "images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in ids],
            "annotations": [{"image_id": i, "category_id": c} for i, c in objects[part]],
            "categories": categories,
        } | (changes if part == "train2017" else {})
        write(root / "annotations", {f"instances_{part}.json": json.dumps(values)})
    write(root / "annotations", {"captions_train2017.json": "{}"})
    return root


def voc(root: Path) -> Path:
    """Two spaces before a 1 and one before a -1, as the files have them; 0 is hard to see."""
    main = root / "VOCdevkit" / "VOC2012"
    photos(main / "JPEGImages", "2008_000002.jpg", "2008_000003.jpg", "2009_000001.jpg")
    lists = {
        "train.txt": "2008_000002\n2008_000003\n",
        "val.txt": "2009_000001\n",
        "trainval.txt": "2008_000002\n2008_000003\n2009_000001\n",
        "cat_trainval.txt": "2008_000002  1\n2008_000003 -1\n2009_000001  0\n",
        "cat_train.txt": "2008_000002  1\n2008_000003 -1\n",
        "dog_trainval.txt": "2008_000002  1\n2008_000003  1\n2009_000001 -1",
    }
    write(main / "ImageSets" / "Main", dict(lists))
    return root


def market(root: Path) -> Path:
    """Junk (-1), a distractor (0000), Windows' own file, a ``gt`` folder beside."""
    names = {
        "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg"],
        "query": ["0001_c1s1_001051_00.jpg"],
        "bounding_box_test": [
            "-1_c1s1_000401_03.jpg",
            "0000_c6s3_000001_01.jpg",
            "0001_c2s1_000301_00.jpg",
        ],
        "gt_query": [],
    }
    for number, (folder, files) in enumerate(names.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write(root / folder, {f: jpeg(10 * number + i) for i, f in enumerate(files)})
    write(root, {"bounding_box_test/Thumbs.db": b"x", "readme.txt": "Market-1501"})
    return root


def veri(root: Path) -> Path:
    photos(root / "image_train", "0001_c001_00016450_0.jpg")
    photos(root / "image_query", "0002_c002_00030600_0.jpg")
    photos(root / "image_test", "0002_c019_00030605_1.jpg")
    return write(root, {"name_query.txt": "0002_c002_00030600_0.jpg\n"})


def hashnet(root: Path) -> Path:
    """One-hot lists: trailing spaces, no last newline, training rows in the database, too."""
    photos(root / "images", "a.jpg", "b.jpg", "c d.jpg", "e.jpg")
    return write(
        root,
        {
            "train.txt": "images/a.jpg 1 0 1\n",
            "test.txt": "images/e.jpg 0 1 0 \n",
            "database.txt": "images/b.jpg 0 0 1 \nimages/a.jpg 1 0 1\nimages/c d.jpg 0 0 0",
        },
    )


def paired(root: Path) -> Path:
    photos(root / "images", "a.jpg", "b.jpg", "c.jpg")
    return write(
        root,
        {
            "database_img.txt": "images/a.jpg\nimages/b.jpg \n",
            "database_label_onehot.txt": "1 0\n1 1",
            "database_label.txt": "0\n0 1\n",
            "test_img.txt": "images/c.jpg",
            "test_label.txt": "1\n",
        },
    )


def metadata(root: Path) -> Path:
    photos(root / "train", "0001.jpg", "deep/0002.jpg")
    photos(root / "test", "0001.jpg")
    lines = [{"file_name": "0001.jpg", "label": 3}, {"file_name": "deep/0002.jpg", "label": ["x"]}]
    return write(
        root,
        {
            "train/metadata.jsonl": "\r\n".join(map(json.dumps, lines)) + "\n\n",
            "test/metadata.jsonl": '{"file_name": "0001.jpg", "label": null}',
        },
    )


def tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def webdataset(root: Path) -> Path:
    """A key with a folder, a label in JSON, one in ``.cls``, none, and an image in capitals."""
    tar(
        root / "train-0000.tar",
        {"./a/0.jpg": jpeg(0), "a/0.cls": b"7\n", "b.json": b'{"label": "cat"}', "b.JPG": jpeg(1)},
    )
    tar(root / "test-0000.tar", {"c.seg.png": encode_image(2), "c.txt": b"a caption"})
    return root


def cifar100(root: Path, rows: int = 3) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    fine, coarse = [f"fine{i}" for i in range(100)], [f"coarse{i}" for i in range(20)]
    meta = {"fine_label_names": fine, "coarse_label_names": coarse}
    (folder / "meta").write_bytes(pickle.dumps(meta))
    for number, name in enumerate(("train", "test")):
        pixels = np.random.default_rng(number).integers(0, 256, (rows, 3072), np.uint8)
        batch = {
            "data": pixels,
            "fine_labels": [99 - i for i in range(rows)],
            "coarse_labels": [i for i in range(rows)],
            "filenames": ["x.png"] * rows,
        }
        (folder / name).write_bytes(pickle.dumps(batch))
    return folder
