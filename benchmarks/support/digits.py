"""The digits as a store, and settings of a search whose trials take seconds: a tiny network."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from schn_ray.core.directories import AlreadyDone
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store

TINY: dict[str, Any] = {
    "bits": 12,
    "backbone.base_channels": 4,
    "backbone.image_size": 8,
    "method.semantic_dim": 16,
    "method.latent_dim": 16,
    "schedule.epochs": 1,
    "schedule.batch_size": 32,
}


def prepare_digits(store: Path) -> None:
    """Make a store of the digits, unless it is there."""
    with suppress(AlreadyDone):
        prepare_store(open_source("digits", SourceConfig()), PrepareConfig(), store)
