"""A released model in use: what it takes, what it refuses, and how it introduces itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.image_files import encode_image
from support.models import write_model

from schn_ray.core.bits import pack, sign
from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.backbones.saved import backbone_fingerprint, build_fixed_backbone
from schn_ray.models.config import BackboneConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.hasher import Hasher, HasherSpec, load
from schn_ray.models.heads.build import build_head

D, K = 7, 12
HEADS = [
    HeadSpec(),
    HeadSpec(kind="mlp", hidden=5),
    HeadSpec(kind="blocks", block=4),
    HeadSpec(kind="fitted", map="kernel", anchors=6),
    HeadSpec(kind="fitted", output="cos", unit=False),
    HeadSpec(kind="recurrent", hidden=6),
]


def of_vectors(head: HeadSpec = HEADS[0], activation: Any = "none") -> Hasher:
    torch.manual_seed(0)
    spec = HasherSpec(
        bits=K,
        backbone=f"features:{D}",
        base_channels=16,
        width=D,
        preprocessing=None,
        head=head,
        activation=activation,
    )
    module = build_backbone(BackboneConfig(name=spec.backbone)).module
    encoder = Encoder(module, build_head(head, D, K))
    for buffer in encoder.buffers():
        buffer.copy_(torch.rand_like(buffer) + 0.1)
    return Hasher(encoder, spec, torch.device("cpu"))


def vectors(dtype: Any = np.float32) -> Any:
    return (np.random.default_rng(0).normal(size=(100, D)) * 20).astype(dtype)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_of_vectors_is_saved_and_loaded(head: HeadSpec, tmp_path: Path) -> None:
    hasher = of_vectors(head)
    hasher.save(tmp_path / "model", "# A model")
    again = load(tmp_path / "model", torch.device("cpu"))
    assert again.spec == hasher.spec
    X = vectors()
    with torch.inference_mode():
        _, h = hasher.network(torch.from_numpy(X))
    np.testing.assert_array_equal(again.encode(X), pack(sign(h)))
    assert torch.equal(again.relaxed(X), h)
    assert torch.equal(again.features(X), torch.from_numpy(X))


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.float64])
def test_vectors_of_every_type(dtype: Any) -> None:
    X = vectors(dtype)
    X.setflags(write=False)  # as from a mapped file
    hasher = of_vectors()
    np.testing.assert_array_equal(hasher.encode(X), hasher.encode(X.astype(np.float32)))
    np.testing.assert_array_equal(hasher.encode(torch.tensor(X)), hasher.encode(X))
    np.testing.assert_array_equal(hasher.encode(list(X)), hasher.encode(X))
    np.testing.assert_array_equal(hasher.encode(X[0]), hasher.encode(X[:1]))
    assert hasher.encode(X[:0]).shape == (0, 2)


def test_the_activation_bounds_the_relaxed_code_and_changes_no_bit() -> None:
    plain, bounded = of_vectors(), of_vectors(activation="tanh")
    X = vectors()
    torch.testing.assert_close(bounded.relaxed(X), torch.tanh(plain.relaxed(X)))
    np.testing.assert_array_equal(bounded.encode(X), plain.encode(X))


def test_what_a_model_of_vectors_refuses() -> None:
    hasher = of_vectors()
    with pytest.raises(SchnRayError, match=r"vectors of 7 numbers: .*'n', 7\), not \(100, 6\)"):
        hasher.encode(vectors()[:, :6])
    with pytest.raises(SchnRayError, match="no vectors of one length"):
        hasher.encode([vectors()[0], vectors()[0, :6]])
    with pytest.raises(SchnRayError, match="takes vectors of 7 numbers, not images"):
        hasher.encode(["photo.png"])
    with pytest.raises(SchnRayError, match="takes vectors of 7 numbers, not images"):
        hasher.encode([encode_image()])
    X = vectors()
    X[41, 2] = np.nan
    with pytest.raises(SchnRayError, match="vector 41 has numbers that are NaN"):
        hasher.encode(X)


def test_what_a_model_of_images_refuses(tmp_path: Path) -> None:
    hasher = load(write_model(tmp_path / "model"))
    with pytest.raises(SchnRayError, match=r"pixels of the shape \(100, 7\)"):
        hasher.encode(vectors())
    with pytest.raises(SchnRayError, match="images of 8 x 8 pixels"):
        hasher.relaxed(np.zeros((2, 3, 9, 9), np.uint8))


def test_a_model_says_what_it_is(tmp_path: Path) -> None:
    images = load(write_model(tmp_path / "model"), torch.device("cpu"))
    assert (images.input, images.input_shape) == ("images", (3, 8, 8))
    assert repr(images) == (
        "Hasher(12 bits, backbone small, head linear, images of 8 x 8 pixels, cpu)"
    )
    hasher = of_vectors(HEADS[3])
    assert (hasher.input, hasher.input_shape) == ("vectors", (7,))
    assert repr(hasher) == (
        "Hasher(12 bits, backbone features:7, head fitted, vectors of 7 numbers, cpu)"
    )


def test_the_head_alone_codes_the_features_of_the_backbone(tmp_path: Path) -> None:
    whole = load(write_model(tmp_path / "model"), torch.device("cpu"))
    views = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), np.uint8)
    head = whole.of_features()
    assert (head.input, head.input_shape) == ("vectors", (whole.spec.width,))
    np.testing.assert_array_equal(
        head.encode(whole.features(views).numpy()), whole.encode_views([views])
    )


def test_a_backbones_fingerprint_changes_with_whatever_changes_its_features() -> None:
    config = BackboneConfig(name="small", base_channels=4)
    backbone = build_fixed_backbone(config)
    before = backbone_fingerprint(backbone, config)
    assert before == backbone_fingerprint(build_fixed_backbone(config), config)
    assert backbone.preprocessing is not None
    bicubic = backbone.preprocessing.model_copy(update={"interpolation": "bicubic"})
    other = dataclasses.replace(backbone, preprocessing=bicubic)
    assert before != backbone_fingerprint(other, config)
    backbone.module.stages[1].running_mean[3] += 1e-6
    assert before != backbone_fingerprint(backbone, config)
