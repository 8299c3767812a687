"""Settings of the network and of the precision it computes in."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from schn_ray.core.settings import Count, Section

PrecisionName = Literal["auto", "float32", "tf32", "bf16"]


class BackboneConfig(Section):
    """The network that turns an image into features.

    Attributes:
        name: ``small``, ``efficientnet_lite0``, a bare name of torchvision, or a name with a
            prefix: ``timm:``, ``hf:``, ``open_clip:``; ``features:D`` for vectors of D numbers;
            ``pixels:S`` for the pixels of the image as a square of side S.
        weights: a file; ``DEFAULT``, or another name of torchvision's, for pretrained weights that
            are downloaded (those of ``efficientnet_lite0`` are installed); ``none`` to train from
            scratch.
        image_size: side of the network's input in pixels; None for the backbone's own.
        reduced_decoding: decode large JPEGs at a fraction of their size, which is faster.
        base_channels: width of the ``small`` backbone.
        freeze_batch_norm: keep the means and variances of the backbone's batch normalisation.
        frozen: leave the backbone as it is: features are computed once, and only the head is
            trained on them.
    """

    name: str = "alexnet"
    weights: str | None = None
    image_size: Count | None = None
    reduced_decoding: bool = True
    base_channels: Count = 16
    freeze_batch_norm: bool = False
    frozen: bool = False

    @field_validator("name")
    @classmethod
    def _bare(cls, name: str) -> str:
        return name.removeprefix("torchvision:")  # one network, one name


class HeadConfig(Section):
    """The layers that turn features into a code, where a method leaves the choice.

    Attributes:
        kind: ``linear``, or ``mlp`` with a hidden layer.
        hidden: width of that hidden layer.
    """

    kind: Literal["linear", "mlp"] = "linear"
    hidden: Count = 512

    def spec(self) -> HeadSpec:
        """Return the head's description for the model's file."""
        return HeadSpec(kind=self.kind, hidden=self.hidden if self.kind == "mlp" else None)


class HeadSpec(Section):
    """What a head is built from; its numbers are among the model's weights.

    Attributes:
        kind: ``linear``; ``mlp``; ``blocks``: one-hot blocks; ``words``: one word of each codebook;
            ``recurrent``: bit after bit; ``fitted``: what a method that descends nothing leaves,
            see ``FittedHead``.
        hidden: width of the hidden layer of ``mlp``, of what ``words`` quantises, and of the states
            of ``recurrent``.
        shared: of ``recurrent``: all bits read their states by the same weights.
        block: k, outputs of a block of ``blocks``, and words of a codebook of ``words``.
        batch_norm: normalise each bit of h over the batch while training, and by the means and
            variances so learned afterwards.
        layer_norm: normalise h over the bits of each row.
        unit: of ``fitted``: divide centred features by their length.
        map: of ``fitted``: of prepared features, before the projection.
        anchors: m, number of anchors of ``kernel`` and ``anchor_graph``.
        nearest: s, number of anchors that count for a row of ``anchor_graph``.
        output: of ``fitted``: from the projection u to h.
    """

    kind: Literal["linear", "mlp", "blocks", "words", "recurrent", "fitted"] = "linear"
    hidden: Count | None = None
    shared: bool = False
    block: Count | None = None
    batch_norm: bool = False
    layer_norm: bool = False
    unit: bool = True
    map: Literal["identity", "kernel", "anchor_graph"] = "identity"
    anchors: Count | None = None
    nearest: Count | None = None
    output: Literal["sign", "cos", "two_layer"] = "sign"
