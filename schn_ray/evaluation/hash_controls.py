"""Controls that hash the features without labels: ITQ, PCA with a random rotation, and LSH.

Each is fitted on the training rows' features and codes the very rows that the model is measured
on, at as many bits. A model that does not beat ITQ gains nothing by its training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.methods.shallow.feature_rows import array_rows
from schn_ray.methods.shallow.fit import ShallowFit, fit_all
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.itq import Itq, ItqConfig
from schn_ray.methods.shallow.lsh import Lsh, LshConfig
from schn_ray.methods.shallow.pca_rotation import PcaRotation, PcaRotationConfig


def hash_controls(features: NDArray[np.floating], bits: int, seed: int) -> dict[str, HashFunction]:
    """Fit every control that needs no labels.

    Args:
        features: of the training rows [n, d].
        bits: K.
        seed: of the projection and of the first rotation.

    Returns:
        ``itq``, ``pca_rotation`` and ``lsh``. Where all rows are equal there is nothing to fit,
        and there are none.
    """
    if (features == features[0]).all():
        return {}
    methods: dict[str, ShallowFit[Any]] = {
        "itq": Itq(ItqConfig(), bits, seed),
        "pca_rotation": PcaRotation(PcaRotationConfig(), bits, seed),
        "lsh": Lsh(LshConfig(), bits, seed),
    }
    return {name: fit_all(method, array_rows(features)) for name, method in methods.items()}
