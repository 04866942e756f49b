"""Muon: momentum whose step is made orthogonal, weight matrix by weight matrix.

Jordan et al., *Muon: an optimizer for hidden layers in neural networks*, 2024 (kellerjordan.github.io/posts/muon).
``torch.optim.Muon``, from torch 2.9 on, takes no convolutions and no biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dim_data.networks.compute import fast_dtype

__all__ = ["Muon", "orthogonalized"]

QUINTIC, STEPS = (3.4445, -4.7750, 2.0315), 5
"""Of Jordan et al.: these bring singular values from [0.01, 1] into about [0.7, 1.2]."""


def orthogonalized(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: singular values go to about 1.

    Args:
        matrix: float (rows, columns), of any scale; zeros stay zeros.
        dtype: What these compute in; bfloat16 moves a value of the result by up to about 0.07.

    Returns:
        (rows, columns), of ``matrix``'s number format.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = ((matrix.T if tall else matrix) / (matrix.norm() + 1e-7)).to(dtype)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised for weights of two or more dimensions, plain for all others.

    A convolution's weight is the matrix (outputs, everything else). One rate serves both: an orthogonal step has
    the same size whatever the gradient's is, and biases and norms learn as under SGD. Steps are made orthogonal in
    bfloat16 where the processor has it, as Jordan et al. do: a wide network's step takes half the time.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate; a matrix moves by about ``lr`` in spectral norm, times the square root of outputs over
            inputs where that is above 1.
        momentum: In [0, 1).
        weight_decay: Decoupled: a step first shrinks matrices by ``lr * weight_decay``; biases and norms are left.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ``closure``, if given, computes the loss again and is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(average, alpha=group["momentum"])
        if weight.ndim >= 2:
            matrix = update.flatten(1)
            rows, columns = matrix.shape
            update = orthogonalized(matrix, dtype=fast_dtype(weight.device)) * max(1.0, rows / columns) ** 0.5
            update = update.view(weight.shape)
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"])
