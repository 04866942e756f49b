"""The pool of classifiers under which real and generated images are compared.

The DiM paper draws a fresh network each epoch and trains it 16 steps before every generator step. Members may
also be trained to several ages once and kept: the same variety for a fraction of the work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from dim_data.distillation.choices import PoolConfig
from dim_data.distillation.loops import StageStep, draw_batch
from dim_data.images import ImageSpec, LabelledImages, augment
from dim_data.networks import autocast, build_classifier, compiled
from dim_data.protocol import LoopState

__all__ = ["age_member", "elders", "renew_member", "start_pool", "warm_pool"]

PEAK_LR = 0.05
AGING_LR = 0.01  # the rate at which the paper trains its members


def start_pool(config: PoolConfig, spec: ImageSpec, seed: int, device: torch.device) -> LoopState:
    """A pool of fresh classifiers, one for each of ``config.ages``.

    Returns:
        A state with the parts ``pool``, a ``ModuleList``, and ``optimiser``, with one group a member.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = itertools.islice(itertools.cycle(config.classifiers), len(config.ages))
        pool = nn.ModuleList(build_classifier(name, spec) for name in names)
    pool.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = [{"params": list(member.parameters())} for member in pool]
    optimiser = torch.optim.SGD(groups, PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return LoopState({"pool": pool, "optimiser": optimiser}, seed)


def warm_pool(
    state: LoopState,
    data: LabelledImages,
    config: PoolConfig,
    device: torch.device,
    batch_size: int = 50,
) -> Iterator[StageStep]:
    """Train member ``i`` for ``config.ages[i]`` steps, one after the other, yielding after each.

    Each follows a one-cycle rate of its own, so that an age is a finished training and not an interrupted one.
    """
    ages = config.ages
    ends = list(itertools.accumulate(ages))
    while state.step < sum(ages):
        member = next(i for i, end in enumerate(ends) if state.step < end)
        progress = (state.step - (ends[member] - ages[member])) / ages[member]
        rise, fall = 0.04 + 0.96 * progress / 0.2, 0.5 + 0.5 * math.cos(math.pi * (progress - 0.2) / 0.8)
        rate = PEAK_LR * (rise if progress < 0.2 else fall)
        loss = _step(state, member, data, config.augmentation, rate, batch_size, device)
        state.step += 1
        yield StageStep("pool", state.step, sum(ages), {"cross_entropy": loss})


def age_member(
    state: LoopState,
    member: int,
    data: LabelledImages,
    augmentation: Sequence[str],
    steps: int,
    batch_size: int,
    device: torch.device,
) -> None:
    """Train one member ``steps`` more steps at a constant rate, as the paper does before each generator step."""
    for _ in range(steps):
        _step(state, member, data, augmentation, AGING_LR, batch_size, device)


def elders(state: LoopState, ages: Sequence[int]) -> list[nn.Module]:
    """The members at least half as old as the oldest: those whose opinions are worth storing."""
    return [member for member, age in zip(state.parts["pool"], ages, strict=True) if 2 * age >= max(ages)]


def renew_member(state: LoopState, member: int) -> None:
    """Give a member fresh weights and forget its momentum."""
    module, optimiser = state.parts["pool"][member], state.parts["optimiser"]
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(1 << 31, (), generator=state.rng)))
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    for parameter in module.parameters():
        optimiser.state.pop(parameter, None)


def _step(
    state: LoopState,
    member: int,
    data: LabelledImages,
    augmentation: Sequence[str],
    rate: float,
    batch_size: int,
    device: torch.device,
) -> float:
    model, optimiser = state.parts["pool"][member], state.parts["optimiser"]
    images, labels = draw_batch(data, batch_size, state.rng, device)
    images = data.spec.normalize(augment(images, augmentation, state.rng))
    model.train()
    optimiser.param_groups[member]["lr"] = rate
    optimiser.zero_grad(set_to_none=True)  # SGD leaves the members without gradients alone
    with autocast(device):
        logits = compiled(model)(images.contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    optimiser.step()
    return loss.item()
