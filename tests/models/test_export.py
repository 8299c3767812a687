"""The exported network gives the network's own codes, and says how to use it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from support.image_files import encode_image, write_tree
from support.models import write_model
from support.users import TINY, Run

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.text import text_for_model
from schn_ray.models import export
from schn_ray.models.export import check_export, export_onnx
from schn_ray.models.load import load as load_hasher
from schn_ray.models.model_files import fingerprint
from schn_ray.models.onnx_hasher import OnnxHasher
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a store, a trained run, its evaluation, and the export of it."""
    folder = tmp_path_factory.mktemp("export")
    photos = open_source(str(write_tree(folder / "photos", {"cat": 20, "dog": 20})), SourceConfig())
    prepare_store(photos, PrepareConfig(), folder / "store")
    one = (*TINY, "schedule.iterations=1", "schedule.epochs=1")
    train_locally(train_config("digits", None, one), folder / "store", folder / "run")
    evaluate_run(folder / "run", folder / "store", folder / "evaluation", EvaluateConfig())
    out = folder / "out" / "model.onnx"
    figures = text_for_model(folder / "evaluation", fingerprint(folder / "run"))
    export_onnx(folder / "run", out, str(folder / "photos"), figures)
    return folder


def test_no_bit_differs_on_the_test_images(folder: Path) -> None:
    described = json.loads((folder / "out" / "model.json").read_text())
    checked = described["checked"]
    assert (checked["images"], checked["bits"], checked["bits_that_differ"]) == (40, 480, 0)
    assert 0 <= checked["largest_difference"] < 1e-4


def test_what_is_described_is_all_that_an_application_needs(folder: Path) -> None:
    """Pillow, numpy and onnxruntime alone, from the metadata of the file."""
    path = folder / "out" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["schn-ray"])
    sha256 = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert described | sha256 == json.loads(path.with_suffix(".json").read_text())
    photos = [folder / "photos" / name for name in ("cat/003.png", "dog/001.png", "dog/007.png")]
    resize, crop = (described["preprocessing"][name] for name in ("resize", "crop"))
    codes = []
    for photo in photos:  # one by one: the number of images in a call is free
        image = Image.open(photo).convert("RGB")
        scale = resize / min(image.size)
        image = image.resize([int(side * scale) for side in image.size], Image.Resampling.BILINEAR)
        left, top = (round((side - crop) / 2) for side in image.size)
        pixels = np.asarray(image)[top : top + crop, left : left + crop].transpose(2, 0, 1)
        (relaxed,) = session.run(["relaxed"], {"images": pixels[None]})
        codes.append(np.packbits(relaxed[0] >= 0, bitorder="little"))
    np.testing.assert_array_equal(codes, load_hasher(folder / "run").encode(photos))
    assert len(np.unique(codes, axis=0)) > 1


def test_the_card_has_what_was_measured(folder: Path) -> None:
    card = (folder / "out" / "model.md").read_text()
    assert card.startswith((folder / "run" / "model" / "README.md").read_text().rstrip())
    assert "0 of 480 bits differ" in card
    measured = json.loads((folder / "evaluation" / "metrics.json").read_text())
    assert f"mAP {measured['map']:.4f}, gallery codes: encoded" in card


def test_a_flipped_weight_is_counted(folder: Path) -> None:
    """A control: the comparison can fail."""
    proto = onnx.load(folder / "out" / "model.onnx")
    bias = next(t for t in proto.graph.initializer if t.name.endswith("head.linear.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 100
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    values[1] -= 100
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    hasher = load_hasher(folder / "run")
    checked = check_export(hasher, proto.SerializeToString(), str(folder / "photos"))
    bits = np.unpackbits(
        hasher.encode(sorted((folder / "photos").rglob("*.png"))), axis=1, bitorder="little"
    )
    assert checked.bits_that_differ == int((bits[:, 0] == 0).sum() + (bits[:, 1] == 1).sum()) > 0


def test_of_a_store_the_queries_are_compared(folder: Path) -> None:
    data = (folder / "out" / "model.onnx").read_bytes()
    assert check_export(load_hasher(folder / "run"), data, str(folder / "store")).images == 4


def test_what_cannot_be_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / "model")
    with pytest.raises(SchnRayError, match="measured another model"):
        text_for_model(folder / "evaluation", fingerprint(other))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(encode_image()[:20])
    data = (folder / "out" / "model.onnx").read_bytes()
    with pytest.raises(SchnRayError, match="no images to compare"):
        check_export(load_hasher(folder / "run"), data, str(tmp_path / "bad"))
    monkeypatch.setattr(export, "_LIBRARIES", ("onnx", "onnx_not_there"))
    with pytest.raises(SchnRayError, match=r"needs onnx_not_there: pip install 'schn-ray\[onnx\]'"):
        export_onnx(other, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def test_export_as_typed(schn_ray: Run, folder: Path, tmp_path: Path) -> None:
    answer = schn_ray("export", folder / "run", "--onnx", tmp_path / "m.onnx", "--json")
    assert answer.code == 0, answer.err
    printed = json.loads(answer.out)
    assert (printed["images"], printed["bits_that_differ"], printed["source"]) == (
        1797,
        0,
        "digits",
    )
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.json", "m.md"}


def test_a_hasher_without_torch_gives_the_same_codes(folder: Path, tmp_path: Path) -> None:
    photos = sorted((folder / "photos").rglob("*.png"))
    for path in (folder / "out" / "model.onnx", folder / "out"):
        hasher = schn_ray.load(path)
        assert isinstance(hasher, OnnxHasher)
        own = load_hasher(folder / "run")
        assert (hasher.bits, hasher.fingerprint) == (own.bits, own.fingerprint)
        np.testing.assert_array_equal(hasher.encode(photos), own.encode(photos))
        np.testing.assert_allclose(hasher.relaxed_of(photos), own.relaxed_of(photos), atol=1e-5)
    with pytest.raises(SchnRayError, match="pixels of the shape"):
        hasher.encode(np.zeros((2, 5), np.float32))
    with pytest.raises(SchnRayError, match="no features"):
        evaluate_run(
            folder / "out",
            folder / "store",
            tmp_path / "evaluation",
            EvaluateConfig(audit="report"),
        )


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda out: (out / "model.json").unlink(), "the .json file beside it"),
        (lambda out: (out / "model.json").write_text("{}"), "Export the run again"),
        (lambda out: shutil.copy(out / "model.onnx", out / "other.onnx"), "2 ONNX files"),
        (lambda out: (out / "model.onnx").write_bytes(b"x"), "differs from the .json file"),
        (lambda out: (out / "model.onnx").unlink(), "no directory|cannot read|manifest"),
    ],
)
def test_an_export_that_is_not_whole(
    folder: Path, tmp_path: Path, broken: Callable[[Path], object], reason: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    broken(out)
    with pytest.raises(SchnRayError, match=reason):
        schn_ray.load(out)
