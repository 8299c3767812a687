"""How numbers are held while networks run: ``auto`` does what the device does well."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from schn_ray.models.config import PrecisionName


@dataclass(frozen=True)
class Precision:
    """What networks compute in; weights, losses and code updates stay in float32 or more.

    Args:
        name: ``float32``; ``tf32``: products of matrices rounded to 10 bits of fraction on GPUs
            that have it; ``bf16``: activations in bfloat16, and the rest as ``tf32``; ``auto``:
            ``bf16`` on a GPU that has it, else ``float32``.
        device: where the networks are.
    """

    name: PrecisionName
    device: torch.device

    @property
    def bf16(self) -> bool:
        """Whether activations are held in bfloat16."""
        if self.name == "auto":
            return self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return self.name == "bf16"

    def for_networks(self) -> torch.autocast:
        """Return the context that networks run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def set_products(self) -> None:
        """Set how this process multiplies float32 matrices, for all of torch."""
        rounded = self.bf16 or self.name == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = rounded
        torch.backends.cudnn.allow_tf32 = rounded
