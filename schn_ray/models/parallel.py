"""Networks that several workers train as one process would: gradients and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from schn_ray.core.workers import Workers

# number of weights: reached by the classifiers of AlexNet and VGG, by no layer that an image passes
# more than once
_LARGE = 2**24


def factor_gradients(network: nn.Module, workers: Workers, least_weights: int = 0) -> None:
    """Replace large linear layers by ones that share gradient factors, see ``FactoredLinear``.

    After each ``backward``, ``complete_gradients`` computes their gradients. A single worker's
    network stays as it is.

    Args:
        network: changed in place; the parameters stay the same objects.
        workers: who shares each global batch.
        least_weights: a layer with fewer weights is left alone.
    """
    if workers.size > 1:
        _replace(network, nn.Linear, lambda old: _factored(old, least_weights))


def complete_gradients(
    network: nn.Module, workers: Workers, parameters: Iterable[nn.Parameter]
) -> None:
    """Compute the gradients of a network's factored layers, averaged over the workers as DDP's.

    The workers exchange the factors in one message. For AlexNet's two large layers and 64 rows
    these are 3 MB, where the gradients are 218 MB.

    Args:
        network: after ``factor_gradients`` and a backward pass.
        workers: who shares each global batch; all of them call this.
        parameters: those that the next step of the optimiser changes. Factors of other layers are
            discarded.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, FactoredLinear)]
    moved = {id(parameter) for parameter in parameters}
    uses = [(layer, *f) for layer in layers for f in layer.taken() if id(layer.weight) in moved]
    if not uses:
        return
    columns = [factor.flatten(1) for _, *factors in uses for factor in factors]
    widths = [column.shape[1] for column in columns]
    gathered = workers.gather_any(torch.cat(columns, dim=1)).split(widths, dim=1)
    for (layer, *_), x, gradient in zip(uses, gathered[::2], gathered[1::2], strict=True):
        layer.add_gradient(x, gradient / workers.size)


def average_gradients(parameters: Iterable[nn.Parameter], workers: Workers) -> None:
    """Average the gradients of small parameters over the workers, in one message.

    Args:
        parameters: after a backward pass, the same on every worker; those without a gradient stay.
        workers: who shares each global batch; all of them call this.
    """
    moved = [p for p in parameters if p.grad is not None]
    if workers.size == 1 or not moved:
        return
    gradients = [p.grad for p in moved if p.grad is not None]
    mean = workers.sum(torch.cat([g.flatten() for g in gradients])) / workers.size
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def data_parallel(network: nn.Module, workers: Workers) -> nn.Module:
    """Wrap a network so that its gradients are averaged over the workers.

    Very large linear layers are the exception: ``complete_gradients`` computes theirs.

    Batch normalisation becomes global. On GPUs it is ``nn.SyncBatchNorm``, on CPUs
    ``GlobalBatchNorm``, because torch has none. A CPU uses ``GlobalBatchNorm`` even with a single
    worker: the sums of ``nn.BatchNorm2d`` round differently, and training amplifies that until one
    worker ends elsewhere than two.

    Args:
        network: is passed forward and backward once a step; changed in place.
        workers: who shares each global batch.

    Returns:
        The module to call in place of ``network``; ``network`` itself on a single worker.
    """
    device = next(network.parameters()).device
    if device.type == "cpu":
        _replace(network, nn.BatchNorm2d, lambda old: _normalising_globally(old, workers))
    elif workers.size > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if workers.size == 1:
        return network
    factor_gradients(network, workers, _LARGE)
    # The workers' buffers are equal already. The option that says so has another name since torch
    # 2.13; a list of names to ignore works with all versions, and factored layers need it anyway.
    # DDP offers no public function for it, and its documentation points to this one.
    ignored = [name for name, _ in (*_factored_parameters(network), *network.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, ignored)
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the rows of all workers, where ``nn.SyncBatchNorm`` needs GPUs.

    It equals ``nn.BatchNorm2d`` on the global batch, up to the rounding of sums. Workers may have
    different numbers of rows. In evaluation mode it is ``nn.BatchNorm2d``.
    """

    workers = Workers()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise this worker's rows [b, c, h, w] of the global batch."""
        if not self.training:
            return super().forward(x)
        return self._over_all_workers(x.to(self.weight.dtype)).to(x.dtype)

    def _over_all_workers(self, x: Tensor) -> Tensor:
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = torch.cat([count, x.sum((0, 2, 3))])
        total, mean = self._total_and_mean(sums)
        centred = x - mean.view(1, -1, 1, 1)
        _, variance = self._total_and_mean(torch.cat([count, centred.square().sum((0, 2, 3))]))
        self._remember(total.detach(), mean.detach(), variance.detach())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def _total_and_mean(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Add up [1 + c] of all workers: a count and c sums -> the count and c means."""
        totals = self.workers.sum_with_gradient(sums)
        return totals[0], totals[1:] / totals[0]

    def _remember(self, total: Tensor, mean: Tensor, variance: Tensor) -> None:
        # all of torchvision's layers have running statistics and a momentum
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * total / (total - 1), self.momentum)


class FactoredLinear(nn.Linear):
    """A linear layer that stores the two factors of its weight's gradient, not their product.

    The gradient [out, in] is G^T X: the output's gradients G [b, out] and the inputs X [b, in].
    Where a batch has far fewer rows than the layer has inputs and outputs, the factors are much
    smaller than the gradient, so workers exchange these.
    """

    def __init__(self, old: nn.Linear) -> None:
        super().__init__(old.in_features, old.out_features, old.bias is not None, "meta")
        self.weight, self.bias = old.weight, old.bias  # shared: optimisers hold these
        self._factors: list[tuple[Tensor, Tensor]] = []
        self._product = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [b, ..., in] -> [b, ..., out]."""
        bias = None if self.bias is None else self.bias.detach()
        y = nn.functional.linear(x, self.weight.detach(), bias)
        return _KeepFactors.apply(y, x.detach(), self.weight, self._factors)

    def taken(self) -> list[tuple[Tensor, Tensor]]:
        """Return the factors of each use of the layer since the last call, and forget them."""
        taken = list(self._factors)
        self._factors.clear()
        return taken

    def add_gradient(self, x: Tensor, gradient: Tensor) -> None:
        """Add the product of inputs [N, in] and output gradients [N, out] of the global batch."""
        x = x.reshape(-1, self.in_features)
        gradient = gradient.reshape(-1, self.out_features)
        if self.weight.grad is None:
            # the memory is reused: allocating new pages takes longer than the product
            self._product = self._product.to(x).resize_(self.weight.shape)
            product = torch.mm(gradient.T, x, out=self._product)
            self.weight.grad = product.to(self.weight.dtype)
        else:
            self.weight.grad += gradient.T @ x
        if self.bias is not None:
            bias = gradient.sum(dim=0).to(self.bias.dtype)
            self.bias.grad = bias if self.bias.grad is None else self.bias.grad + bias


class _KeepFactors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, weight: Tensor, factors: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        ctx.factors = factors
        ctx.save_for_backward(x)
        ctx.mark_dirty(y)  # otherwise y is a view, and the next layer can't work in place
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.factors.append((*ctx.saved_tensors, gradient))
        return gradient, None, None, None


def _factored(old: nn.Linear, least_weights: int) -> nn.Linear:
    return FactoredLinear(old) if old.weight.numel() >= least_weights else old


def _factored_parameters(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [
        (f"{name}.{kind}", parameter)
        for name, layer in network.named_modules()
        if isinstance(layer, FactoredLinear)
        for kind, parameter in layer.named_parameters()
    ]


def _normalising_globally(old: nn.BatchNorm2d, workers: Workers) -> nn.BatchNorm2d:
    ours = GlobalBatchNorm(old.num_features, old.eps, old.momentum)
    ours.workers = workers
    ours.weight, ours.bias = old.weight, old.bias  # shared: optimisers hold these
    for buffer in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(ours, buffer, getattr(old, buffer))
    return ours


def _replace(network: nn.Module, kind: type[nn.Module], by: Callable[[Any], nn.Module]) -> None:
    """Replace each layer of exactly this class, at any depth of the network."""
    for name, child in network.named_children():
        if type(child) is kind:
            setattr(network, name, by(child))
        else:
            _replace(child, kind, by)
