"""The encoder: a backbone and a head. It is all that is released."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """A backbone and a head: F = backbone(inputs), h = head(F). A row's code is sign(h).

    Args:
        backbone: images [N, 3, S, S], or vectors [N, d] -> features [N, d].
        head: features [N, d] -> h [N, K], before any activation.
        freeze_batch_norm: normalise with the backbone's own means and variances while training.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, freeze_batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._freeze_batch_norm = freeze_batch_norm

    def train(self, mode: bool = True) -> Encoder:
        """Set the training mode; frozen batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self._freeze_batch_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images [N, 3, S, S] or vectors [N, d] -> F [N, d], h [N, K]."""
        F = self.backbone(inputs)
        return F, self.head(F)
