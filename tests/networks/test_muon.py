"""Muon: orthogonal steps of weight matrices, plain ones of all else."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from dim_data.networks.compute import fast_dtype
from dim_data.networks.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-3), (torch.bfloat16, 0.08)])
def test_singular_values_come_near_one_and_singular_vectors_stay(
    shape: tuple[int, int], scale: float, dtype: torch.dtype, off: float
) -> None:
    rng = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=rng), full_matrices=False)
    values = torch.logspace(0, -1.5, len(v))
    made = orthogonalized(u @ torch.diag(values) @ v * scale, dtype=dtype)
    assert made.shape == shape
    assert made.dtype == torch.float32
    inside = u.T @ made @ v.T
    assert inside.diagonal().min() > 0.6
    assert inside.diagonal().max() < 1.3
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=off)


def test_no_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalized(torch.zeros(3, 5)), torch.zeros(3, 5))
    weights = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(4))]
    weights[0].grad = torch.zeros(3, 5)
    Muon(weights, 0.1).step()
    assert all(torch.equal(weight, torch.ones_like(weight)) for weight in weights)


def test_the_step_of_a_matrix_does_not_depend_on_the_size_of_its_gradient() -> None:
    gradient = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    moved = []
    for scale in (2**-10, 2**10):
        weight = nn.Parameter(torch.zeros(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
        weight.grad = (gradient * scale).contiguous(memory_format=torch.channels_last)
        Muon([weight], 0.1).step()
        moved.append(weight.detach())
    expected = orthogonalized(gradient.flatten(1), dtype=fast_dtype(gradient.device))
    assert torch.allclose(moved[0], moved[1], atol=1e-4)
    assert torch.allclose(moved[0].flatten(1), -0.1 * expected, atol=1e-4)


def test_a_tall_matrix_moves_further() -> None:
    weight = nn.Parameter(torch.zeros(16, 4))
    weight.grad = torch.randn(16, 4, generator=torch.Generator().manual_seed(2))
    Muon([weight], 0.1).step()
    expected = orthogonalized(weight.grad, dtype=fast_dtype(weight.device))
    assert torch.allclose(weight.detach(), -0.1 * 2 * expected, atol=1e-4)


def test_biases_follow_sgd_with_nesterov_momentum() -> None:
    rng = torch.Generator().manual_seed(3)
    ours, theirs = nn.Parameter(torch.zeros(7)), nn.Parameter(torch.zeros(7))
    optimizers = Muon([ours], 0.1, 0.8, weight_decay=0.5), torch.optim.SGD([theirs], 0.1, 0.8, nesterov=True)
    for _ in range(5):
        ours.grad = torch.randn(7, generator=rng)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(ours, theirs)


def test_only_matrices_decay() -> None:
    weights = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(4))]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    Muon(weights, 0.1, weight_decay=0.5).step()
    assert torch.allclose(weights[0], torch.full((3, 5), 0.95))
    assert torch.equal(weights[1].detach(), torch.ones(4))


def test_it_goes_on_from_its_state() -> None:
    rng = torch.Generator().manual_seed(4)
    first, second = (nn.Parameter(torch.zeros(3, 5)) for _ in range(2))
    one, two = Muon([first], 0.1), Muon([second], 0.1)
    for step in range(4):
        first.grad = torch.randn(3, 5, generator=rng)
        one.step()
        if step == 1:
            second.data.copy_(first.data)
            two.load_state_dict(deepcopy(one.state_dict()))
        elif step > 1:
            second.grad = first.grad.clone()
            two.step()
    assert torch.allclose(first, second)


def test_a_closure_is_asked_again() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight], 0.01)

    def closure() -> float:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(5)]
    assert losses[0] == 4
    assert losses[-1] is not None
    assert losses[-1] < 4
