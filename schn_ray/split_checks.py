"""What a split has to come to before anything is made from it, and what is said otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from schn_ray.config import PrepareConfig
from schn_ray.errors import SchnRayError

if TYPE_CHECKING:
    from schn_ray.protocols import Counts, Protocol, Rows


def check_classes(name: str, protocol: Protocol, classes: Sequence[str]) -> None:
    """Refuse fewer than two classes, or another number than the protocol's.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    if len(classes) < 2:
        raise SchnRayError(
            f"wanted at least two classes, got {len(classes)} ({', '.join(classes) or 'none'}): "
            "hashing learns from which images differ"
        )
    if protocol.classes not in (None, len(classes)):
        raise SchnRayError(f"{name} wants {protocol.classes} classes, got {len(classes)}")


def check_shares(protocol: Protocol, config: PrepareConfig) -> None:
    """Refuse shares that leave a role empty.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    query, train = config.query_share, config.train_share
    if protocol.draw == "shares" and not (query > 0 and train > 0 and query + train < 1):
        raise SchnRayError(
            f"query_share {query:g} and train_share {train:g}: both must be above 0, and together "
            "below 1, as the gallery is what they leave"
        )
    if config.validation_share >= 1:
        raise SchnRayError("validation_share 1 leaves no rows to train on; 0.1 is usual")


def check_sizes(sizes: Rows, names: list[str], wanted: int, config: PrepareConfig) -> None:
    """Refuse groups with too few images.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    small = np.flatnonzero(sizes < wanted)
    if len(small):
        shown = ", ".join(f"{names[i]} has {sizes[i]}" for i in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise SchnRayError(
            f"{shown}{more}: {config.protocol} needs at least {wanted} images of each, so that "
            "each can be in every role; add images, or leave these out"
        )


def check_counts(name: str, protocol: Protocol, *drawn: NDArray[np.bool_]) -> None:
    """Refuse rows drawn [n] each that are not as many as the protocol says, or none.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    query, train, gallery = (int(mask.sum()) for mask in drawn)
    check_numbers(name, protocol, (query, train, gallery))
    if not query or not gallery or not train:
        words = "train and test" if protocol.draw == "official" else "train, test and database"
        raise SchnRayError(
            f"{name}: the data set itself has to say which rows are {words}; these rows give "
            f"{_counted((query, train, gallery))}"
        )


def check_numbers(name: str, protocol: Protocol, got: tuple[int, int, int]) -> None:
    """Refuse numbers of rows that are not the protocol's.

    Raises:
        SchnRayError: with what came and what was wanted.
    """
    wanted = protocol.counts or (None, None, None)
    if any(want not in (None, number) for want, number in zip(wanted, got, strict=True)):
        raise SchnRayError(f"{name} wants {_counted(wanted)}; these rows give {_counted(got)}")


def _counted(counts: Counts) -> str:
    query, train, gallery = ("any" if count is None else f"{count:,}" for count in counts)
    return f"{query} query, {train} training and {gallery} gallery rows"
