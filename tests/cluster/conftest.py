"""A store and its trainings, shared by all modules on Ray: each start of workers takes seconds."""

from pathlib import Path

import pytest
import torch
from support.image_files import write_tree
from support.shared_training import PHOTOS, config, train_by_two

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.training.run import train_locally


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("shared") / "photos", PHOTOS)


@pytest.fixture(scope="session")
def store(photos: Path) -> Path:
    out = photos.parent / "store"
    prepare_store(open_source(str(photos), SourceConfig()), PrepareConfig(), out)
    return out


@pytest.fixture(scope="session")
def runs(store: Path, cluster: None) -> dict[int, Path]:
    """Train the same config in this process, and on Ray by two workers: workers -> run."""
    out = {workers: store.parent / f"run-{workers}" for workers in (1, 2)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers have
    train_locally(config(), store, out[1], keep_checkpoints=True)
    torch.set_num_threads(threads)
    train_by_two(store, out[2])
    return out
