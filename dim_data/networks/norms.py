"""Batch normalisation of a batch that several ranks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.networks.ranks import Ranks

__all__ = ["share_norms"]


class SharedNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises by mean and variance of the whole batch, as one process would that had all of it.

    ``torch.nn.SyncBatchNorm`` does so on GPUs alone. Statistics of each rank's part would be others with each number
    of ranks, and with few images a rank worse ones.
    """

    mean_over_ranks: Callable[[Tensor], Tensor]
    ranks: int

    def _check_input_dim(self, input: Tensor) -> None:
        """Any that has channels."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        if not self.training:
            return super().forward(input)
        over, shape = [0, *range(2, input.ndim)], [1, -1] + [1] * (input.ndim - 2)
        wide = input.float()
        mean = self.mean_over_ranks(wide.mean(over))
        rest = wide - mean.view(shape)
        variance = self.mean_over_ranks(rest.square().mean(over))
        self._track(mean.detach(), variance.detach(), self.ranks * input.numel() // input.shape[1])
        normal = rest * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        share = self.momentum or 0.1
        self.running_mean.lerp_(mean, share)  # type: ignore[union-attr]
        self.running_var.lerp_(variance * (count / (count - 1)), share)  # type: ignore[union-attr]
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]


class _Shared1d(SharedNorm, nn.BatchNorm1d):
    pass


class _Shared2d(SharedNorm, nn.BatchNorm2d):
    pass


KINDS: dict[type[nn.Module], type[Any]] = {nn.BatchNorm1d: _Shared1d, nn.BatchNorm2d: _Shared2d}


def share_norms(module: nn.Module, ranks: Ranks) -> None:
    """From now on, have each batch normalisation in ``module`` take the parts of all ranks for its batch, in training.

    Each rank has a part of one size. Weights, and what they are called, stay.
    """
    if ranks.size == 1:
        return
    mean = torch.compiler.disable(ranks.mean)  # a compiled function is left for what goes over the network
    for layer in module.modules():
        if type(layer) in KINDS:
            shared: Any = layer
            shared.__class__ = KINDS[type(layer)]
            shared.mean_over_ranks, shared.ranks = mean, ranks.size
