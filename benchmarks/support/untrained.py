"""A model that nobody trained and images of noise: speed and kills do not ask what they show."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from schn_ray.models.backbones import build_backbone
from schn_ray.models.config import NetworkConfig
from schn_ray.models.encoder import ImageNetwork
from schn_ray.models.hasher import Hasher, HasherSpec, preprocessing_for


def write_model(path: Path, backbone: str, size: int | None = None, bits: int = 32) -> Path:
    """Write a model directory with random weights."""
    torch.manual_seed(0)
    network, feature_dim = build_backbone(backbone, None)
    config = NetworkConfig(backbone=backbone, image_size=size)
    spec = HasherSpec(
        bits=bits,
        backbone=backbone,
        base_channels=config.base_channels,
        preprocessing=preprocessing_for(config),
    )
    Hasher(ImageNetwork(network, feature_dim, bits), spec).save(path, "# Random weights")
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
