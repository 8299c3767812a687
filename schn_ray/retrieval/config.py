"""Settings of ``encode`` and ``serve``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section
from schn_ray.data.config import SourceReader


class EncodeConfig(SourceReader):
    """Settings of ``encode``.

    Attributes:
        batch_size: images that go through the network at once.
        relaxed: also write the network's output before the sign, as float16.
        features: also write what the head's output is computed from, a backbone's features or the
            vectors, as int8.
        bits: of a code, of a model of nested codes; None: all.
        precision: number format of the network. It is a setting and not chosen by the machine,
            because bits of codes depend on it.
    """

    batch_size: Count = 64
    relaxed: bool = False
    features: bool = False
    bits: Count | None = None
    precision: Literal["float32", "bf16"] = "float32"

    def recorded(self) -> dict[str, Any]:
        """Return the settings that a manifest records: those that change what is written."""
        values = super().recorded()
        del values["bits"]  # the codes' own are recorded
        if not self.features:  # finished codes of before stay finished
            del values["features"]
        return values


class ServeConfig(Section):
    """Settings of ``serve``.

    Attributes:
        host: address to listen on.
        port: port to listen on.
        hosts: further names under which requests may address the server.
        max_bytes: size of a request's body, at most.
        max_pixels: of an image, at most; larger ones are refused by their header, before decoding.
        max_results: results of one request, at most.
        max_filter: characters of a request's filter, at most.
        originals: show originals as they are, with all that their files say, such as where a photo
            was taken; otherwise thumbnails only.
        replicas: processes that answer: 1 is this process, more are on Ray Serve.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    hosts: tuple[str, ...] = ()
    max_bytes: Count = 16_000_000
    max_pixels: Count = 50_000_000
    max_results: Count = 200
    max_filter: Count = 2000
    originals: bool = True
    replicas: Count = 1
