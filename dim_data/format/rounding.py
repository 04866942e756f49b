"""Four bits: what rounding a weight of a layer spoils, those still to be rounded make up for; tables alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.format.weights import FOUR_BIT_TOP
from dim_data.networks import DoublingConv

__all__ = ["round_layers", "round_table"]

PATCHES = 1024
"""Input rows that are sampled from each batch, at most: a convolution has one at each pixel."""
SMALL = 10_000
"""Layers of fewer weights are left alone: the first and the last spoil most, and there is little to save."""
DAMPING = 0.01
"""What is added to the inputs' moments, as a share of their mean: GPTQ's own."""


@torch.no_grad()
def round_layers(network: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Round a network's weights, in place, to whole multiples, -7 to 7, of a scale for each output of a layer.

    Layers are convolutions and linear ones of 10,000 weights or more; all else is left. Weights are rounded input by
    input, and those not rounded yet make up for each error as far as they can, on what the rounded layers before
    make of ``batches``: GPTQ (arXiv 2210.17323).

    Args:
        network: In eval mode, float32, on the CPU.
        batches: Its arguments, a few hundred typical inputs in all.

    Returns:
        The scales, float32 (outputs,), by the name of the weight.
    """
    found = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() >= SMALL:
            rows = layer.weight.flatten(1)
            scales = _best_scales(rows)
            moments = _moments(layer, network, batches)
            layer.weight.copy_(_round_rows(rows, scales, moments).view(layer.weight.shape))
            found[f"{name}.weight"] = scales
    return found


@torch.no_grad()
def round_table(table: Tensor) -> Tensor:
    """Round ``table`` (..., D), in place, to whole multiples, -7 to 7, of a scale for each row of D.

    Returns:
        The scales, float32 (...).
    """
    rows = table.flatten(0, -2)
    scales = _best_scales(rows)
    rows.copy_(_rounded(rows, scales[:, None]))
    return scales.view(table.shape[:-1])


def _moments(layer: nn.Conv2d | nn.Linear, network: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """Second moments of a layer's inputs, float64 (D, D): D weights make one output."""
    total, rng = torch.zeros(1, dtype=torch.float64), torch.Generator().manual_seed(0)

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        rows = inputs[0]
        if isinstance(layer, nn.Conv2d):
            if isinstance(layer, DoublingConv):
                rows = F.interpolate(rows, scale_factor=2.0)
            padding = 0 if isinstance(layer.padding, str) else layer.padding  # no network here pads by name
            patches = F.unfold(rows.contiguous(), layer.kernel_size, layer.dilation, padding, layer.stride)
            rows = patches.transpose(1, 2)
        rows = rows.flatten(0, -2)
        rows = rows[torch.randperm(len(rows), generator=rng)[:PATCHES]]
        total = total + (rows.T @ rows).double()

    hook = layer.register_forward_pre_hook(watch)
    try:
        for batch in batches:
            network(*batch)
    finally:
        hook.remove()
    return total


def _rounded(weights: Tensor, scales: Tensor) -> Tensor:
    return (weights / scales).round().clamp(-FOUR_BIT_TOP, FOUR_BIT_TOP) * scales


def _best_scales(rows: Tensor) -> Tensor:
    """The scale of each row (outputs, D) that leaves the least squared error, even if it cuts off the largest."""
    largest = rows.abs().amax(1).clamp(min=1e-12)
    best, least = largest / FOUR_BIT_TOP, torch.full_like(largest, torch.inf)
    # Whole numbers among them: weights that are multiples of a scale already find it, and stay.
    for top in (torch.arange(2, 36) / 2).tolist():
        scales = largest / top
        error = (_rounded(rows, scales[:, None]) - rows).square().sum(1)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return best


def _round_rows(weights: Tensor, scales: Tensor, moments: Tensor) -> Tensor:
    """Round weights (outputs, D) so that their products with inputs of these ``moments`` (D, D) change little."""
    # What matters most comes first: the rest makes up for it.
    order = moments.diagonal().argsort(descending=True, stable=True)
    rows, scales = weights[:, order].double(), scales.double()
    damping = DAMPING * moments.diagonal().mean().clamp(min=1e-12)
    moments = moments[order][:, order] + damping * torch.eye(len(moments), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    for i in range(rows.shape[1]):
        rounded = _rounded(rows[:, i], scales)
        error = (rows[:, i] - rounded) / upper[i, i]
        rows[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
        rows[:, i] = rounded
    return rows[:, order.argsort()].to(weights)
