"""Settings of SCHN: the weights of its losses, and its discrete codes."""

from __future__ import annotations

from typing import Literal

from schn_ray.core.settings import Section, Weight


class LossConfig(Section):
    """Weight of each term; 0 leaves it out. ``negative_target``: what dissimilar pairs aim at."""

    hash_image: Weight = 1.0
    hash_semantic: Weight = 1.0
    hash_latent: Weight = 1.0
    cycle_image: Weight = 1.0
    cycle_semantic: Weight = 1.0
    adversarial: Weight = 1.0
    quantization: Weight = 10.0
    negative_target: Literal["zero", "soft"] = "zero"


class CodesConfig(Section):
    """The discrete codes: how they start, and the pulls of U_s and U_z in their update."""

    init: Literal["zeros", "random", "hadamard"] = "zeros"
    update: bool = True
    alpha: Weight = 2.0
    beta: Weight = 0.1
