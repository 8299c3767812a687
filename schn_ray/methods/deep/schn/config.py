"""Settings of SCHN: sizes of its networks, weights of its loss terms, and its discrete codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from schn_ray.core.settings import Count, Searched, Share, Weight
from schn_ray.methods.base import MethodConfig

_Term = Annotated[Weight, Searched(log=(0.1, 10))]
_SideTerm = Annotated[Weight, Searched(log=(0.01, 10))]


class SchnConfig(MethodConfig):
    """SCHN as published (ACM TOMM 2022); a loss weight of 0 disables a term.

    Attributes:
        hash_image: weight of the image network's hash loss.
        hash_semantic: weight of the semantic network's hash loss.
        hash_latent: weight of the latent network's hash loss.
        cycle_image: weight of the image cycle.
        cycle_semantic: weight of the semantic cycle.
        adversarial: weight of the discriminators' losses. It scales two losses with Adam optimisers
            of their own, which divide it out: it only matters whether it is 0.
        quantization: weight of the quantization term within a hash loss.
        pair: weight of the likelihood of pairs of image codes; not published, see ``SchnPlus``.
        pair_scale: a of its logits a / K U_i . U_j.
        classifier: weight of the loss of a linear classifier on the features of the image; not
            published, see ``SchnPlus``.
        negative_target: target similarity of dissimilar pairs: 0, or the soft negative -N1/N0 of
            the code update.
        initial_codes: what the discrete codes start from, see ``code_table.initial_codes``.
        update_codes: whether the codes are updated after each iteration.
        alpha: weight of the semantic codes in the update.
        beta: weight of the latent codes in the update.
        semantic_dim: d_s, width of the semantic feature.
        latent_dim: d_z, width of the latent feature.
        latent_dropout: share of the latent feature that is dropped before its hash layer.
        latent_activation: of the latent code.
        label_graph: ``sum`` takes the label graph A as it is, ``mean`` row-normalises it.
        cycle: which features are queries in the reconstruction networks, see ``cycle.CYCLES``.
        decay: whether the main optimiser's learning rate decays too, or that of the adversarial
            ones only.
    """

    recipe: ClassVar[Mapping[str, Any]] = {"backbone": {"name": "alexnet", "weights": "DEFAULT"}}
    hash_image: _Term = 1.0
    hash_semantic: _Term = 1.0
    hash_latent: _SideTerm = 1.0
    cycle_image: _SideTerm = 1.0
    cycle_semantic: _SideTerm = 1.0
    adversarial: Annotated[Weight, Searched(choices=(0, 1))] = 1.0
    quantization: Annotated[Weight, Searched(log=(0.1, 100))] = 10.0
    pair: Annotated[Weight, Searched(log=(1, 300))] = 0.0
    pair_scale: Weight = 10.0
    classifier: Weight = 0.0
    negative_target: Annotated[Literal["zero", "soft"], Searched()] = "zero"
    initial_codes: Annotated[Literal["zeros", "random", "hadamard"], Searched()] = "zeros"
    update_codes: bool = True
    alpha: Annotated[Weight, Searched(linear=(0, 4))] = 2.0
    beta: Annotated[Weight, Searched(linear=(0, 2))] = 0.1
    semantic_dim: Count = 512
    latent_dim: Count = 1024
    latent_dropout: Share = 0.5
    latent_activation: Literal["sigmoid", "tanh"] = "sigmoid"
    label_graph: Literal["sum", "mean"] = "sum"
    cycle: Literal["schn", "schn-mmasia"] = "schn"
    decay: Literal["all", "adversarial"] = "all"

    @property
    def with_latent(self) -> bool:
        """Whether a term with a weight needs the latent and the cycle networks."""
        terms = (self.hash_latent, self.cycle_image, self.cycle_semantic, self.adversarial)
        return max(terms) > 0

    @property
    def with_semantic(self) -> bool:
        """Whether a term with a weight needs the semantic network."""
        return self.hash_semantic > 0 or self.with_latent


class SchnMmasiaConfig(SchnConfig):
    """The ACM MM Asia 2021 variant: no discriminators, and features are queries."""

    adversarial: Annotated[Weight, Searched(choices=(0, 1))] = 0.0
    cycle: Literal["schn", "schn-mmasia"] = "schn-mmasia"


class SchnPlusConfig(SchnConfig):
    """SCHN with the correction that pays: codes that start at random (docs/method.md)."""

    initial_codes: Annotated[Literal["zeros", "random", "hadamard"], Searched()] = "random"
