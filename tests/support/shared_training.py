"""A training that is small, and long enough to be killed; on one worker, or on Ray by two."""

from pathlib import Path

from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.train import train_on_ray
from schn_ray.training.config import TrainConfig, train_config
from support.processes import as_options
from support.users import TINY

PHOTOS = {"cat": 14, "dog": 14, "owl": 14}
ITERATIONS = 8
SETTINGS = (
    *TINY,
    f"schedule.iterations={ITERATIONS}",
    "schedule.epochs=2",
    "schedule.batch_size=7",
    "optimiser.learning_rate=4e-5",
    "method.latent_dropout=0",
)
OPTIONS = ["--preset", "digits", *as_options(SETTINGS)]


def config() -> TrainConfig:
    """Return the training's config."""
    return train_config("digits", None, SETTINGS)


def train_by_two(store: Path, out: Path) -> None:
    """Train on Ray by two workers."""
    train_on_ray(config(), store, out, WorkerRequest(2, 2), keep_checkpoints=True)
