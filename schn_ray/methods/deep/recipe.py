"""How deep methods were published: a pretrained backbone, fine-tuned at a lower rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fine_tuned(
    learning_rate: float = 1e-4, backbone_rate: float = 0.1, weight_decay: float = 5e-4
) -> Mapping[str, Any]:
    """Return a recipe: AlexNet with weights from ImageNet, and Adam.

    Most papers used SGD. Presets set rates for Adam, so it is the optimiser here.

    Args:
        learning_rate: of the head.
        backbone_rate: factor of the backbone's.
        weight_decay: of all weights.
    """
    return {
        "backbone": {"name": "alexnet", "weights": "DEFAULT"},
        "optimiser": {
            "learning_rate": learning_rate,
            "backbone_rate": backbone_rate,
            "weight_decay": weight_decay,
        },
    }
