"""Settings of SCHN: weights of its loss terms, and its discrete codes."""

from __future__ import annotations

from typing import Literal

from schn_ray.core.settings import Section, Weight


class LossConfig(Section):
    """Weights of the loss terms; 0 disables a term.

    ``negative_target`` is the target similarity of dissimilar pairs: 0, or the soft negative -N1/N0
    of the code update.
    """

    hash_image: Weight = 1.0
    hash_semantic: Weight = 1.0
    hash_latent: Weight = 1.0
    cycle_image: Weight = 1.0
    cycle_semantic: Weight = 1.0
    adversarial: Weight = 1.0
    quantization: Weight = 10.0
    negative_target: Literal["zero", "soft"] = "zero"


class CodesConfig(Section):
    """The discrete codes: what they start from, and how they are updated.

    ``alpha`` and ``beta`` weigh U_s and U_z in the update; without ``update`` the codes stay fixed.
    """

    init: Literal["zeros", "random", "hadamard"] = "zeros"
    update: bool = True
    alpha: Weight = 2.0
    beta: Weight = 0.1
