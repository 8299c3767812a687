"""Settings of a search whose trials take seconds: digits, 12 bits, a tiny network."""

from __future__ import annotations

from typing import Any

FIXED: dict[str, Any] = {
    "bits": 12,
    "network.base_channels": 4,
    "network.image_size": 8,
    "network.semantic_dim": 16,
    "network.latent_dim": 16,
    "schedule.epochs": 1,
    "schedule.batch_size": 32,
}
