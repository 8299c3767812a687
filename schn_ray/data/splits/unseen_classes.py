"""Hold classes out of training, and query with their images (Sablayrolles et al., ICASSP 2017).

If training sees all classes, a code that only encodes the class ranks perfectly. Ranking images of
unseen classes shows whether similarity was learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError

Rows = NDArray[np.int64]


def of_unseen_classes(
    labels: csr_array[Any], share: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the classes to hold out, and tell which rows have at least one of them.

    Args:
        labels: [n, C] label matrix; classes without rows are not counted.
        share: of the classes to hold out.
        generator: of random numbers.

    Returns:
        [n] bool. The other rows have seen classes only, and are for training.

    Raises:
        SchnRayError: fewer than two classes would be held out, or left for training.
    """
    present = np.flatnonzero(np.bincount(labels.indices, minlength=labels.shape[1]))
    held_out = round(share * len(present))
    if held_out < 2 or len(present) - held_out < 2:
        raise SchnRayError(
            f"unseen_share {share:g} holds {held_out} of {len(present)} classes out; wanted at "
            "least two to rank, and at least two to train on"
        )
    chosen = np.zeros(labels.shape[1], np.int64)
    chosen[generator.permutation(present)[:held_out]] = 1
    return np.asarray(labels.astype(np.int64) @ chosen > 0)


def unseen_queries(group: NDArray[np.signedinteger], groups: int, share: float) -> Rows:
    """Return how many queries to draw from each group.

    Args:
        group: [n] the group of each row, in [0, groups).
        groups: how many groups there are.
        share: of a group's rows.

    Returns:
        [groups] the share, rounded; at least one if the group has rows, and not all of them.

    Raises:
        SchnRayError: a group of one row, which cannot be both query and gallery.
    """
    sizes = np.bincount(group, minlength=groups)
    if np.any(sizes == 1):
        raise SchnRayError(
            f"{int(np.sum(sizes == 1))} of the classes held out have a single image, which cannot "
            "be both query and gallery; add images, or take another --seed"
        )
    return np.where(sizes > 0, np.clip(np.rint(sizes * share), 1, sizes - 1), 0).astype(np.int64)
