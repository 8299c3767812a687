"""Weights of EfficientNet-Lite0 for timm's ``tf_efficientnet_lite0``, as a file.

Run by hand: python -m benchmarks.support.efficientnet_lite0 WEIGHTS.safetensors

``--backbone efficientnet_lite0`` needs no file; timm's own name does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file

from schn_ray.models.backbones.efficientnet_lite0 import packaged_weights


def write_weights(path: Path) -> Path:
    """Write the backbone's weights under timm's names, as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(packaged_weights(), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Weights of EfficientNet-Lite0 for timm.")
    parser.add_argument("out", type=Path)
    print(write_weights(parser.parse_args().out))


if __name__ == "__main__":
    main()
