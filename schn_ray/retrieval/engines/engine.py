"""What an engine is: how codes are written for it, the lines that search it, and its limits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch


class Target(NamedTuple):
    """What a recipe searches.

    Attributes:
        out: path or URI of the directory that was written.
        bits: of a code.
        labels: whether the rows have labels.
    """

    out: str
    bits: int
    labels: bool = False

    @property
    def width(self) -> int:
        """Bytes of a packed code."""
        return -(-self.bits // 8)

    def quoted(self, name: str = "") -> str:
        """Return a file of the directory, or the directory itself, as a string of Python."""
        return json.dumps(f"{self.out}/{name}" if name else self.out, ensure_ascii=False)

    @property
    def query(self) -> str:
        """A comment of Python that says what ``query`` is."""
        return (
            f'# query: uint8 [n, {self.width}], as schn_ray.load("run").encode(images) returns it'
        )


@dataclass(frozen=True)
class Engine:
    """An engine that codes are written for.

    Attributes:
        write: writes a gallery's batches into an empty directory.
        recipe: returns the lines that search what was written.
        language: of the recipe, as a fence of Markdown names it.
        unit: the engine stores a multiple of so many bits; the last ones are zeros.
        packages: modules that ``write`` imports and that the core does not have.
        extra: of ours that installs them.
        most_rows: that it takes; None for no limit.
        most_bits: that it takes; None for no limit.
        longest_id: in bytes; None for no limit.
    """

    write: Callable[[CodeGallery, Iterator[RowBatch], Path], None]
    recipe: Callable[[Target], str]
    language: str = "python"
    unit: int = 8
    packages: tuple[str, ...] = ()
    extra: str = ""
    most_rows: int | None = None
    most_bits: int | None = None
    longest_id: int | None = None


@contextlib.contextmanager
def errors_of(engine: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn an engine's errors of writing into ours.

    Args:
        engine: its name.
        errors: classes of the engine's errors.

    Raises:
        SchnRayError: the block raised one of these.
    """
    try:
        yield
    except errors as error:
        raise SchnRayError(
            f"{engine} could not write the rows: {error}. Solve that, and run the same command "
            "again"
        ) from error
