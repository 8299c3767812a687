"""Number formats that networks compute in; ``auto`` chooses by the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from schn_ray.models.config import PrecisionName


@dataclass(frozen=True)
class Precision:
    """The number format of the networks; weights, losses, code updates stay in float32 or more.

    Args:
        name: ``float32``; ``tf32``: matrix products with 10 bits of fraction, on GPUs that
            support it; ``bf16``: activations in bfloat16, the rest as ``tf32``; ``auto``: ``bf16``
            on a GPU that supports it, else ``float32``.
        device: of the networks.
    """

    name: PrecisionName
    device: torch.device

    @property
    def bf16(self) -> bool:
        """Whether activations are bfloat16."""
        if self.name == "auto":
            return self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return self.name == "bf16"

    def for_networks(self) -> torch.autocast:
        """Return the context manager in which networks run forward."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def set_products(self) -> None:
        """Set the rounding of float32 matrix products on GPUs, for all of torch in this process."""
        rounded = self.bf16 or self.name == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = rounded
        torch.backends.cudnn.allow_tf32 = rounded
