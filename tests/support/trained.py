"""Small stores of photos, and what a run that trained on one left."""

from pathlib import Path

import torch

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.training.checkpoints import LAST
from support.image_files import write_tree


def photo_store(folder: Path, counts: dict[str, int], config: PrepareConfig | None = None) -> Path:
    """Prepare so many photos of each class; they stay in ``folder/photos``."""
    tree = write_tree(folder / "photos", counts)
    source = open_source(str(tree), SourceConfig())
    prepare_store(source, config or PrepareConfig(), folder / "store")
    return folder / "store"


def last_state(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights, the codes and Adam's means of the last checkpoint, by name."""
    saved = torch.load(run / "checkpoints" / LAST, weights_only=True)
    moments = saved["learner"]["optimisers"]["main"]["state"]
    means = {f"mean of {i}": moment["exp_avg"] for i, moment in moments.items()}
    return dict(saved["learner"]["method"] | saved["codes"] | means)
