"""GreedyHash without labels (Su et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor

from schn_ray.core.settings import Searched, Weight
from schn_ray.methods.base import Batch, DeepMethod, MethodConfig, Outputs, Paper
from schn_ray.methods.deep.greedyhash import straight_through_sign
from schn_ray.methods.losses import cosines_of_halves


class GreedyhashUnlabelledConfig(MethodConfig):
    """Settings of GreedyHash without labels.

    Attributes:
        similarity: weight of the squared difference of the cosines of codes and features.
        quantization: weight of mean ||h| - 1|^3.
        centre: subtract the batch's mean from features; not in the paper. Features that are never
            negative all have large cosines, and then codes share most of their bits.
    """

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone": {"name": "vgg16", "weights": "DEFAULT", "frozen": True},
        "optimiser": {"learning_rate": 1e-4, "weight_decay": 5e-4},
    }
    similarity: Weight = 1.0
    quantization: Annotated[Weight, Searched(log=(1e-2, 1.0))] = 0.1
    centre: Annotated[bool, Searched(choices=(True, False))] = True


class GreedyhashUnlabelled(DeepMethod[GreedyhashUnlabelledConfig]):
    """GreedyHash without labels: codes have the cosines of features, through the sign.

    Rows i and i + N/2 of a batch are pairs: L = mean (cos(b_i, b_i') - cos(F_i, F_i'))^2 + alpha
    mean ||h| - 1|^3, b = sign(h), whose gradient passes. The paper's but for ``centre``. Features
    are constants: meant for a frozen backbone, published with VGG-16 and a rate of 1e-4.
    """

    Config = GreedyhashUnlabelledConfig
    labels = "none"
    paper = Paper("Greedy Hash: Towards Fast Optimization for Accurate Hash Coding", "NeurIPS 2018")

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cosines' difference, of the whole batch, and the pull to -1 or +1."""
        F = batch.gather(out.F.detach().to(out.h))
        of_features = cosines_of_halves(F - F.mean(dim=0) if self.config.centre else F)
        of_codes = cosines_of_halves(batch.gather(straight_through_sign(out.h)))
        return {
            "similarity": (of_codes - of_features).square().mean(),
            "quantization": (out.h.abs() - 1).abs().pow(3).mean(),
        }
