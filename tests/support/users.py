"""What a user types and reads, and settings of a run that takes seconds."""

from collections.abc import Callable
from typing import NamedTuple

TINY = (
    "bits=12",
    "backbone.base_channels=4",
    "backbone.image_size=8",
    "method.semantic_dim=16",
    "method.latent_dim=16",
)


class Answer(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]
