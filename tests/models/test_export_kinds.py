"""Every kind of head, and models that take vectors, as ONNX; every bit is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.models import write_model

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.export import check_export, describe, export_onnx
from schn_ray.models.hasher import Hasher
from schn_ray.models.heads.build import build_head
from schn_ray.models.heads.fitted import FittedHead
from schn_ray.models.load import load
from schn_ray.models.model_files import HasherSpec

K = 12
HEADS = [
    HeadSpec(),
    HeadSpec(kind="mlp", hidden=5),
    HeadSpec(kind="blocks", block=4),
    HeadSpec(kind="mlp", hidden=5, batch_norm=True),
    HeadSpec(kind="fitted", unit=False),
    HeadSpec(kind="fitted", output="cos"),
    HeadSpec(kind="fitted", map="kernel", anchors=6),
    HeadSpec(kind="fitted", map="anchor_graph", anchors=6, nearest=2, output="two_layer"),
]


def write(path: Path, backbone: BackboneConfig, head: HeadSpec = HEADS[0]) -> Path:
    """Write a model whose numbers are random, and whose codes differ from row to row."""
    torch.manual_seed(0)
    built = build_backbone(backbone)
    encoder = Encoder(built.module, build_head(head, built.width, K)).eval()
    if isinstance(encoder.head, FittedHead):
        shape = (64, built.width) if built.preprocessing is None else (64, 3, 8, 8)
        mean = encoder.backbone(torch.randn(shape)).mean(dim=0).detach()
        for name, buffer in encoder.head.named_buffers():
            buffer.copy_(mean if name.endswith("mean") else torch.randn(buffer.shape) / 3)
        if head.output == "cos":
            encoder.head.W *= 9  # else every u is near 0, and every cosine near 1
        if head.map != "identity":
            encoder.head.map.kernel_width.fill_(3.0)
    spec = HasherSpec(
        bits=K,
        backbone=backbone.name,
        base_channels=backbone.base_channels,
        width=built.width,
        architecture=built.architecture,
        preprocessing=built.preprocessing,
        head=head,
        activation="none",
    )
    Hasher(encoder, spec).save(path, "# A model")
    return path


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("small", HEADS[0]),
        ("features:7", HEADS[0]),
        pytest.param("small", HEADS[-1], marks=pytest.mark.slow),
        *(pytest.param("features:7", head, marks=pytest.mark.slow) for head in HEADS[1:]),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_no_bit_differs(backbone: str, head: HeadSpec, tmp_path: Path) -> None:
    config = BackboneConfig(name=backbone, base_channels=2, image_size=8)
    model = write(tmp_path / "model", config, head)
    checked = export_onnx(model, tmp_path / "m.onnx")
    rows, source = (1024, "random vectors") if backbone == "features:7" else (1797, "digits")
    assert (checked.images, checked.source) == (rows, source)
    assert (checked.bits, checked.bits_that_differ) == (rows * K, 0)
    assert len(np.unique(load(model).relaxed(inputs(load(model))).sign(), axis=0)) > 1


def inputs(hasher: Hasher) -> np.ndarray:
    rng = np.random.default_rng(0)
    if hasher.input == "vectors":
        return rng.normal(size=(50, *hasher.input_shape)).astype(np.float32)
    return rng.integers(0, 256, (50, *hasher.input_shape), np.uint8)


@pytest.fixture(scope="module")
def of_vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of vectors, its export, and vectors in Parquet and in a store."""
    folder = tmp_path_factory.mktemp("vectors")
    write(folder / "model", BackboneConfig(name="features:7"))
    export_onnx(folder / "model", folder / "m.onnx")
    X = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 7)
    ids = pa.array([str(row) for row in range(60)])
    pq.write_table(pa.table({"id": ids, "vector": column}), folder / "rows.parquet")
    source = open_source(str(folder / "rows.parquet"), SourceConfig())
    prepare_store(source, PrepareConfig(), folder / "store")
    return folder


def test_vectors_of_a_source_and_queries_of_a_store_are_compared(of_vectors: Path) -> None:
    hasher, data = load(of_vectors / "model"), (of_vectors / "m.onnx").read_bytes()
    source = str(of_vectors / "rows.parquet")
    checked = check_export(hasher, data, source)
    assert (checked.images, checked.source, checked.bits_that_differ) == (60, source, 0)
    queries = check_export(hasher, data, str(of_vectors / "store"))
    assert 0 < queries.images < 60
    assert queries.bits_that_differ == 0


def test_an_application_needs_only_the_description(of_vectors: Path) -> None:
    hasher = load(of_vectors / "model")
    described = describe(hasher)
    assert described["input"] == {"name": "vectors", "type": "float32", "shape": ["n", 7]}
    assert "before" not in described
    session = onnxruntime.InferenceSession(of_vectors / "m.onnx")
    X = inputs(hasher)
    (relaxed,) = session.run(["relaxed"], {"vectors": X})
    codes = np.packbits(relaxed >= 0, axis=1, bitorder="little")
    np.testing.assert_array_equal(codes, hasher.encode(X))


def test_vectors_of_another_width_are_refused(of_vectors: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "model", BackboneConfig(name="features:8"))
    with pytest.raises(SchnRayError, match="takes vectors of 8 numbers"):
        export_onnx(model, tmp_path / "m.onnx", str(of_vectors / "store"))


def test_a_store_of_vectors_has_no_images_to_compare_on(of_vectors: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with pytest.raises(SchnRayError, match="no image"):
        export_onnx(model, tmp_path / "m.onnx", str(of_vectors / "store"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("timm:tf_efficientnet_lite0", 64), ("timm:vit_tiny_patch16_224", 32)]
)
def test_timms_networks(name: str, size: int, tmp_path: Path) -> None:
    model = write(tmp_path / "model", BackboneConfig(name=name, image_size=size))
    checked = export_onnx(model, tmp_path / "m.onnx")
    assert checked.bits == 1797 * K
    assert checked.bits_that_differ <= checked.bits * 1e-4  # untrained: values close to 0
