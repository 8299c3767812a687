"""A small SCHN and a batch for it, shared by the tests of wiring and of distribution."""

import numpy as np
import torch
from scipy.sparse import csr_array

from schn_ray.core.workers import Workers
from schn_ray.data.labels import label_sets
from schn_ray.methods.base import Batch
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.deep.schn.config import CodesConfig, LossConfig
from schn_ray.methods.deep.schn.method import Schn, SchnNetworks
from schn_ray.models.config import NetworkConfig, PrecisionName
from schn_ray.models.precision import Precision

BITS, CLASSES, ROWS = 6, 5, 7


def make_schn(
    loss: LossConfig | None = None,
    workers: Workers | None = None,
    seed: int = 0,
    learning_rate: float = 1e-2,
    precision: PrecisionName = "float32",
    **network: object,
) -> Schn:
    torch.manual_seed(seed)
    loss = loss or LossConfig()
    sizes = {"backbone": "small", "base_channels": 4, "semantic_dim": 12, "latent_dim": 16}
    config = NetworkConfig.model_validate(sizes | {"latent_dropout": 0.0} | network)
    networks = SchnNetworks(config, BITS, CLASSES, adversarial=loss.adversarial > 0).double()
    return Schn(
        networks,
        loss,
        CodesConfig(),
        ScheduleConfig(learning_rate=learning_rate),
        label_sets(make_labels()),
        workers or Workers(),
        Precision(precision, torch.device("cpu")),
    )


def make_labels() -> csr_array:
    Y = np.random.default_rng(0).random((ROWS, CLASSES)) < 0.3
    Y[0] = False  # a row without labels is similar to nothing
    Y[1, :2] = True
    return csr_array(Y.astype(np.uint8))


def make_batch(seed: int = 1) -> Batch:
    """Return a global batch with the images of all rows."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(ROWS, 3, 8, 8, generator=generator, dtype=torch.float64)
    B = torch.randint(0, 2, (ROWS, BITS), generator=generator).double() * 2 - 1
    return Batch(images, torch.from_numpy(make_labels().toarray()).double(), B)
