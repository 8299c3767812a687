"""A model that nobody trained and images of noise: speed and kills do not ask what they show."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.hasher import Hasher
from schn_ray.models.heads.linear import LinearHead
from schn_ray.models.model_files import HasherSpec


def write_model(path: Path, name: str, size: int | None = None, bits: int = 32) -> Path:
    """Write a model directory with random weights."""
    torch.manual_seed(0)
    config = BackboneConfig(name=name, image_size=size)
    backbone = build_backbone(config)
    spec = HasherSpec(
        bits=bits,
        backbone=config.name,
        base_channels=config.base_channels,
        width=backbone.width,
        architecture=backbone.architecture,
        preprocessing=backbone.preprocessing,
        head=HeadSpec(),
    )
    encoder = Encoder(backbone.module, LinearHead(backbone.width, bits))
    Hasher(encoder, spec).save(path, "# Random weights")
    return path


def write_photos(path: Path, rows: int, size: tuple[int, int]) -> Path:
    """Write a Parquet file of JPEGs, smooth as photos are, so that decoding costs what it does."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(rows):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        data = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
        images.append(data.getvalue())
    names = [f"{i:07}" for i in range(rows)]
    pq.write_table(pa.table({"id": names, "image": images}), path, row_group_size=256)
    return path
