"""A small SCHN and a batch for it, shared by the tests of wiring and of distribution."""

import numpy as np
import torch
from scipy.sparse import csr_array

from schn_ray.core.workers import Workers
from schn_ray.data.labels import label_sets
from schn_ray.methods.base import Batch, Problem
from schn_ray.methods.config import OptimiserConfig, ScheduleConfig
from schn_ray.methods.deep.schn.config import SchnConfig
from schn_ray.methods.deep.schn.method import Schn
from schn_ray.methods.trainer import Trainer
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig, HeadConfig, PrecisionName
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head
from schn_ray.models.precision import Precision

BITS, CLASSES, ROWS = 6, 5, 7
SIZES = {"semantic_dim": 12, "latent_dim": 16, "latent_dropout": 0.0}


def make_schn(
    workers: Workers | None = None,
    seed: int = 0,
    learning_rate: float = 1e-2,
    precision: PrecisionName = "float32",
    **settings: object,
) -> Trainer:
    """Return a trainer; its ``method`` is SCHN with these settings, in double precision."""
    torch.manual_seed(seed)
    backbone = build_backbone(BackboneConfig(name="small", base_channels=4))
    problem = Problem(
        BITS,
        backbone.width,
        label_sets(make_labels()),
        workers or Workers(),
        Precision(precision, torch.device("cpu")),
        seed,
    )
    head = build_head(HeadConfig().spec(), backbone.width, BITS)
    config = SchnConfig.model_validate(SIZES | settings)
    schn = Schn(config, problem, Encoder(backbone.module, head)).double()
    return Trainer(schn, OptimiserConfig(learning_rate=learning_rate), ScheduleConfig())


def schn_of(trainer: Trainer) -> Schn:
    """Return a trainer's method."""
    assert isinstance(trainer.method, Schn)
    return trainer.method


def make_labels() -> csr_array:
    """Return labels [ROWS, CLASSES]."""
    Y = np.random.default_rng(0).random((ROWS, CLASSES)) < 0.3
    Y[0] = False  # a row without labels is similar to nothing
    Y[1, :2] = True
    return csr_array(Y.astype(np.uint8))


def make_batch(seed: int = 1) -> Batch:
    """Return a global batch with the images of all rows."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(ROWS, 3, 8, 8, generator=generator, dtype=torch.float64)
    B = torch.randint(0, 2, (ROWS, BITS), generator=generator).double() * 2 - 1
    Y = torch.from_numpy(make_labels().toarray()).double()
    return Batch(images, torch.arange(ROWS), Y, B)
