"""What a user reads after a mistake: what came, what was wanted, what to do."""

import json
import shutil
from pathlib import Path

import pytest
from support.image_files import encode_image, write_tree
from support.users import TINY, Run

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

pytestmark = pytest.mark.usefixtures("cluster")

ONE = (*TINY, "schedule.iterations=1", "schedule.epochs=1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a store, runs of 12 and 16 bits, another run of 12, codes and an index."""
    folder = tmp_path_factory.mktemp("bad-input")
    photos = open_source(str(write_tree(folder / "photos", {"cat": 8, "dog": 8})), SourceConfig())
    prepare_store(photos, PrepareConfig(), folder / "store")
    for name, setting in [("run", "seed=0"), ("other", "seed=1"), ("wide", "bits=16")]:
        config = train_config("digits", None, (*ONE, setting))
        train_locally(config, folder / "store", folder / name)
    encode_source(photos, folder / "run", folder / "codes", EncodeConfig())
    write_index(folder / "codes", folder / "index")
    return folder


def refused(answer, *words: str) -> None:  # type: ignore[no-untyped-def]
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, ["no images"]),
        pytest.param({"cat": 5}, ["at least two classes", "got 1 (cat)"], marks=pytest.mark.slow),
        pytest.param(
            {"cat": 5, "dog": 1}, ["class 'dog' has 1", "at least"], marks=pytest.mark.slow
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(
    schn_ray: Run, tmp_path: Path, classes: dict[str, int], words: list[str]
) -> None:
    (tmp_path / "photos").mkdir()
    photos = write_tree(tmp_path / "photos", classes)
    refused(schn_ray("prepare", photos, "--out", tmp_path / "store"), *words)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_folder_that_is_not_there(schn_ray: Run, tmp_path: Path) -> None:
    refused(schn_ray("prepare", tmp_path / "nowhere", "--out", tmp_path / "store"), "nowhere")
    refused(schn_ray("check", tmp_path / "nowhere"), "nowhere")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_too_many_bad_images_stop_prepare(schn_ray: Run, tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 8, "dog": 8})
    (photos / "dog" / "half.png").write_bytes(encode_image()[:50])
    answer = schn_ray("prepare", photos, "--out", tmp_path / "store")
    assert answer.code == 3
    assert "dog/half.png" in answer.err
    assert not (tmp_path / "store" / "manifest.json").exists()
    allowed = ("--set", "source.max_bad_share=0.1")
    answer = schn_ray("prepare", photos, "--out", tmp_path / "store", *allowed)
    assert (answer.code, "quarantined: 1" in answer.out) == (0, True)


def test_settings_that_make_no_sense(schn_ray: Run, made: Path, tmp_path: Path) -> None:
    train = ("train", made / "store", "--out", tmp_path / "run")
    refused(schn_ray(*train, "--set", "bits=0"), "bits", "greater than or equal to 1", "got 0")
    refused(schn_ray(*train, "--set", "bist=8"), "unknown setting 'bist'", "did you mean 'bits'")
    refused(schn_ray(*train, "--preset", "digit"), "no preset 'digit'", "did you mean 'digits'")
    refused(schn_ray(*train, "--method", "shcn"), "no method 'shcn'", "did you mean 'schn'")
    refused(schn_ray(*train, "--set", "backbone.name=resnet5"), "did you mean 'resnet5")
    refused(
        schn_ray(*train, "--weights", "nowhere.pth", "--set", "backbone.name=resnet18"),
        "nowhere.pth",
    )
    refused(schn_ray("train", made / "store"), "--out")
    config = tmp_path / "config.yaml"
    config.write_text("method: {hash_imagee: 1}\n")
    refused(schn_ray(*train, "--config", config), "did you mean 'method.hash_image'")
    refused(
        schn_ray("prepare", made / "photos", "--out", tmp_path / "s", "--protocol", "cifar10-54"),
        "cifar10-54k",
    )
    assert not (tmp_path / "run").exists()


def test_directories_that_are_something_else(schn_ray: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(schn_ray("prepare", made / "photos", "--out", tmp_path), "holds something")
    refused(schn_ray("index", made / "store", "--out", tmp_path / "i"), "wanted a codes directory")
    refused(schn_ray("train", made / "codes", "--out", tmp_path / "r"), "wanted a store directory")
    refused(schn_ray("encode", made / "photos", "--model", made, "--out", tmp_path / "c"), "run")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_of_another_version(schn_ray: Run, made: Path, tmp_path: Path) -> None:
    store = shutil.copytree(made / "store", tmp_path / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["format"], manifest["versions"]["schn-ray"] = 7, "9.9"
    (store / "manifest.json").write_text(json.dumps(manifest))
    answer = schn_ray("train", store, "--out", tmp_path / "run")
    refused(answer, "format 7", "made by schn-ray 9.9", "make the store again")


def test_models_that_did_not_code_the_index(schn_ray: Run, made: Path) -> None:
    query = made / "photos" / "cat" / "000.png"
    wide = schn_ray("search", made / "index", query, "--model", made / "wide")
    refused(wide, "codes of 12 bits, the model makes 16")
    refused(schn_ray("search", made / "index", query, "--model", made / "other"), "another model")
    missing = schn_ray("search", made / "index", made / "no.png", "--model", made / "run")
    refused(missing, "no.png")
    garbage = made / "garbage.png"
    garbage.write_bytes(b"<html>not found</html>")
    answer = schn_ray("search", made / "index", garbage, "--model", made / "run")
    refused(answer, "garbage.png", "not an image")


def test_damaged_models_are_refused(schn_ray: Run, made: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "hasher.yaml"):
        model = tmp_path / name
        model.mkdir()
        for file in (made / "run" / "model").iterdir():
            (model / file.name).write_bytes(file.read_bytes())
        (model / name).write_bytes((model / name).read_bytes()[:20])
        refused(schn_ray("encode", made / "photos", "--model", model, "--out", tmp_path / "c"))


def test_a_traceback_is_there_for_those_who_ask(
    schn_ray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHN_RAY_VERBOSE", "1")
    answer = schn_ray("check", tmp_path / "nowhere", "-v")
    assert answer.code == 2
    assert "Traceback" in answer.err
