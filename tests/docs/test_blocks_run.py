"""The blocks of README.md and docs/ that nothing else runs, run as they stand, on tiny data.

Each has a directory of its own with what it names. Three things are not as for a user: networks
and schedules are tiny (``SMALLER``), addresses are directories, and nothing is on Ray. ``pip`` and
``make`` are left out, and the verbs that need a cluster, which tests/cluster runs.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import uvicorn
from support.documents import COMMANDS, Block, all_blocks, commands_of
from support.image_files import encode_image
from support.users import TINY, Run

import schn_ray as face

ROOT = Path(__file__).parents[2]
SMALL = ("backbone.name=small", "backbone.weights=none", "backbone.base_channels=4", "seed=1")
ONE = ("schedule.iterations=1", "schedule.epochs=1", "schedule.samples=64")
SMALLER = {
    "train": [*SMALL, "backbone.image_size=8", *ONE],
    "embed": ["backbone.name=small", "backbone.weights=none", "backbone.image_size=8"],
    "build": ["source.max_bad_share=0.5"],
}
ON_A_CLUSTER = ("doctor", "submit", "tune")
PICTURES = 12  # of each class


def write_photos(folder: Path, classes: tuple[str, ...] = ("cats", "dogs")) -> None:
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(PICTURES):
            image = encode_image(100 * c + i, (24, 24), "JPEG")
            (folder / name / f"{i:03}.jpg").write_bytes(image)
    copy = (folder / classes[0] / "000.jpg").read_bytes()
    (folder / classes[0] / "copy.jpg").write_bytes(copy)


@pytest.fixture(scope="module")
def props(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What blocks name: photos, a store, a run, codes ..., by the names that they have there."""
    folder = tmp_path_factory.mktemp("props")
    write_photos(folder / "photos")
    write_photos(folder / "all-my-photos")
    write_photos(folder / "more", ("birds",))
    for name in ("photo.jpg", "query.jpg"):
        shutil.copy(folder / "photos" / "dogs" / "003.jpg", folder / name)
    settings = {"backbone.name": "small", "backbone.weights": "none"}
    small = dict(line.split("=") for line in [*TINY, *ONE]) | settings | {"bits": 32}
    store = face.prepare(folder / "photos", folder / "store")
    run = face.train(store, folder / "run", settings=[f"{k}={v}" for k, v in small.items()])
    for name, source in (("codes", "photos"), ("MORE-CODES", "more")):
        both = {"features": True, "relaxed": True}
        face.encode(folder / source, run, folder / name, settings=both)
    write_columns(folder / "photos.parquet")
    columns = folder / "photos.parquet"
    face.build_index(folder / "codes", folder / "index", vectors=["features"], columns=columns)
    face.embed(store, folder / "features", backbone="small", settings={"backbone.weights": "none"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schn_ray.cli.album.stages.write_report", write_short_report)
        face.build(folder / "photos", folder / "album")
    for name in ("store", "run", "codes", "index", "features"):
        shutil.copytree(folder / name, folder / name.upper())
    for name in ("TRAIN-CODES", "TEST-CODES"):
        shutil.copytree(folder / "codes", folder / name)
    shutil.copy(ROOT / "examples" / "own_method.py", folder)
    (folder / "resnet50.pth").touch()  # SMALLER has another network
    (folder / "ids.txt").write_text("dogs/001.jpg\ndogs/002.jpg\n")
    (folder / "gone.txt").write_text("dogs/001.jpg\n")
    write_vectors(folder)
    return folder


def write_vectors(folder: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 16)).astype("f4")
    column = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": column}), folder / "embeddings.parquet")
    np.save(folder / "query.npy", vectors[:1])
    for name, rows in (("gallery", 40), ("query", 8)):
        np.save(folder / f"B_{name}.npy", rng.choice([-1, 1], (rows, 16)))
        np.save(folder / f"U_{name}.npy", rng.normal(size=(rows, 16)))
        np.save(folder / f"L_{name}.npy", rng.integers(0, 3, rows))


def write_columns(file: Path) -> None:
    ids = [f"{name}/{i:03}.jpg" for name in ("cats", "dogs") for i in range(PICTURES)]
    n = len(ids)
    taken = np.array(["2020-01-01", "2021-01-01"], "datetime64[D]")[np.arange(n) % 2]
    columns = {
        "id": ids,
        "label": [id.split("/")[0].rstrip("s") for id in ids],
        "year": [2019 + i % 3 for i in range(n)],
        "taken": pa.array(taken),
        "indoor": [i % 2 == 0 for i in range(n)],
        "score": [None, 0.5] * (n // 2),
    }
    pq.write_table(pa.table(columns), file)


def here(text: str) -> str:
    """The same with directories in place of addresses, and without workers."""
    text = re.sub(r"s3://bucket/|/mnt/shared/", "", text)
    return re.sub(r" --workers \S+", "", text)


def lay_out(text: str, props: Path, folder: Path) -> None:
    for prop in props.iterdir():
        if re.search(rf"(?<![\w.-])(?:\./)?(?<!\w/){re.escape(prop.name)}(?![\w.-]*\w)", text):
            copy: Callable[..., object] = shutil.copytree if prop.is_dir() else shutil.copy
            copy(prop, folder / prop.name)


def run_command(words: list[str], schn_ray: Run) -> None:
    verb, *rest = words
    out = Path(rest[rest.index("--out") + 1]) if "--out" in rest else None
    updates = {"--update", "--retry-failed"} & set(rest)
    if out is not None and not updates and verb != "build":
        for path in (out, *out.parent.glob(f"{out.stem}.*.txt")):  # lists of duplicates, too
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    smaller = SMALLER.get(verb, [])
    if "--features" in rest or Path("embeddings.parquet").exists():
        smaller = [line for line in smaller if not line.startswith("backbone.")]
    for line in smaller:
        rest += ["--set", line]
    answer = schn_ray(verb, *rest)
    assert answer.code == 0, f"{verb} {' '.join(rest)}: {answer.err}"
    assert out is None or out.exists()


def shell_blocks() -> list[Block]:
    return [block for block in all_blocks() if block.is_run and block.language in COMMANDS]


@pytest.mark.slow
@pytest.mark.parametrize("block", shell_blocks(), ids=str)
def test_a_block_runs(
    block: Block, props: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schn_ray: Run
) -> None:
    text = here(block.text)
    lay_out(text, props, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("schn_ray.cli.options.workers_of", lambda *_: None)
    monkeypatch.setattr("importlib.util.find_spec", without_ray())
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_: None)
    monkeypatch.setattr("schn_ray.cli.album.stages.write_report", write_short_report)
    ran = 0
    for program, *words in commands_of(text):
        if program == "schn-ray" and words[0] not in ON_A_CLUSTER:
            run_command(words, schn_ray)
            ran += 1
    assert ran, f"{block}: nothing in it is run; say who does"


def write_short_report(run: object, out: Path, **_: object) -> None:
    """Write a page without its thirty diagrams, in place of an album's."""
    out.write_text(f"a page of {run}")


def without_ray() -> Callable[..., object]:
    from importlib.util import find_spec

    return lambda name, *package: None if name == "ray" else find_spec(name, *package)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [b for b in all_blocks() if b.is_run and b.language == "python"], ids=str
)
def test_python_runs(
    block: Block, props: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out("photo.jpg photos index " + block.text, props, tmp_path)
    monkeypatch.chdir(tmp_path)
    hasher = face.load(props / "run")
    codes = hasher.encode(["photo.jpg"])
    with torch.no_grad():
        exec(compile(block.text, str(block), "exec"), {"hasher": hasher, "codes": codes})
