"""Settings of ``encode`` and ``serve``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section
from schn_ray.data.config import SourceReader


class EncodeConfig(SourceReader):
    """What ``encode`` reads, how many images go through the network at once, what is written.

    ``relaxed`` keeps the network's output before the sign, as float16. ``precision`` is that of
    the network, recorded and not guessed from the machine, since it decides bits.
    """

    batch_size: Count = 64
    relaxed: bool = False
    precision: Literal["float32", "bf16"] = "float32"


class ServeConfig(Section):
    """Where the search page listens, and what a request may be; ``hosts`` are further names."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    hosts: tuple[str, ...] = ()
    max_bytes: Count = 16_000_000
    max_pixels: Count = 50_000_000
    max_results: Count = 200
    replicas: Count = 1
