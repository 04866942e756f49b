"""The pool of classifiers under which real and generated images are compared.

The DiM paper draws a fresh network each epoch and trains it 16 steps before every generator step. Members may
also be trained to several ages once and kept: the same variety for a fraction of the work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.choices import PoolConfig
from dim_data.distillation.loops import StageStep, draw_batch
from dim_data.images import ImageSpec, LabelledImages, augment, in_steps, torch_defaults
from dim_data.networks import (
    ALONE,
    GlobalRng,
    Ranks,
    autocast,
    build_classifier,
    channels_last,
    check_classifier,
    compiled,
)
from dim_data.protocol import LoopState

__all__ = ["age_member", "oldest_members", "reset_member", "start_pool", "warm_pool"]

PEAK_LR = 0.05
AGING_LR = 0.01  # the rate at which the paper trains its members


@torch_defaults()
def start_pool(config: PoolConfig, spec: ImageSpec, seed: int, device: torch.device) -> LoopState:
    """A pool of fresh classifiers, one for each of ``config.ages``.

    Returns:
        A state with the parts ``pool``, a ``ModuleList``, and ``optimizer``, with one group a member, which says how
        many steps it has been trained.

    Raises:
        ValueError: One of them cannot look at such images.
    """
    with GlobalRng(seed):
        names = list(itertools.islice(itertools.cycle(config.classifiers), len(config.ages)))
        pool = nn.ModuleList(build_classifier(name, spec) for name in names)
    for name, member in zip(names, pool, strict=True):  # before any of them is trained
        try:
            check_classifier(member, spec)
        except ValueError as error:
            raise ValueError(f"pool.classifiers names {name!r}, which cannot look at these images: {error}") from error
    channels_last(pool, device)
    groups = [{"params": list(member.parameters()), "steps": 0} for member in pool]
    optimizer = torch.optim.SGD(groups, PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True)
    return LoopState({"pool": pool, "optimizer": optimizer}, seed)


@in_steps()
def warm_pool(
    state: LoopState,
    data: LabelledImages,
    config: PoolConfig,
    device: torch.device,
    batch_size: int = 50,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Train member ``i`` for ``config.ages[i]`` steps, yielding after each: one after the other, or by ranks.

    Each follows a one-cycle rate of its own, so that an age is a finished training and not an interrupted one. Ranks
    train members side by side, each its own, and each member sees what it would see if one rank trained them all.
    """
    ages, groups = config.ages, state.parts["optimizer"].param_groups
    starts = [0, *itertools.accumulate(ages)]
    owners = _share_members([age - group["steps"] for group, age in zip(groups, ages, strict=True)], ranks)
    draws = _Draws(state.rng, data, config.augmentation, batch_size, 0 if state.step == 0 else None)
    state.collect = partial(_collect, state, owners, ranks) if ranks.size > 1 else None
    models = [compiled(member) for member in state.parts["pool"]]  # each is one rank's alone
    while state.step < sum(ages):
        turn = [_next_member(groups, ages, owners, rank) for rank in range(ranks.size)]
        member, loss = turn[ranks.rank], math.nan
        if member is not None:
            done = groups[member]["steps"]
            draws.move(starts[member] + done)
            rate = PEAK_LR * _one_cycle(done / ages[member])
            loss = _step(state, member, models[member], data, config.augmentation, rate, batch_size, device)
            draws.place += 1
        losses = ranks.each("pool", 0.0 if member is None else loss)
        trained = [(one, loss) for one, loss in zip(turn, losses, strict=True) if one is not None]
        for one, _ in trained:
            groups[one]["steps"] += 1
        state.step += len(trained)
        for number, (_, loss) in enumerate(trained, state.step - len(trained) + 1):
            yield StageStep("pool", number, sum(ages), {"cross_entropy": loss})
    if ranks.size > 1:
        _collect(state, owners, ranks)
        draws.move(sum(ages))
    state.collect = None


def _one_cycle(progress: float) -> float:
    """Share of the peak rate."""
    rise, fall = 0.04 + 0.96 * progress / 0.2, 0.5 + 0.5 * math.cos(math.pi * (progress - 0.2) / 0.8)
    return rise if progress < 0.2 else fall


def _share_members(left: Sequence[int], ranks: Ranks) -> list[int]:
    """The rank that trains each member: the longest training first, to whoever has the least to do."""
    work, owners = [0] * ranks.size, [0] * len(left)
    for member in sorted(range(len(left)), key=lambda member: (-left[member], member)):
        owners[member] = work.index(min(work))
        work[owners[member]] += left[member]
    return owners


def _next_member(groups: Sequence[Any], ages: Sequence[int], owners: Sequence[int], rank: int) -> int | None:
    own = (member for member, owner in enumerate(owners) if owner == rank)
    return next((member for member in own if groups[member]["steps"] < ages[member]), None)


def _collect(state: LoopState, owners: Sequence[int], ranks: Ranks) -> None:
    """Have every rank know every member, and its momentum, as the rank that trains it does."""
    optimizer = state.parts["optimizer"]
    for member, group, owner in zip(state.parts["pool"], optimizer.param_groups, owners, strict=True):
        momenta = []
        if group["steps"]:
            for parameter in group["params"]:
                kept = optimizer.state[parameter]
                if kept.get("momentum_buffer") is None:
                    kept["momentum_buffer"] = torch.zeros_like(parameter)
                momenta.append(kept["momentum_buffer"])
        ranks.broadcast([*member.state_dict().values(), *momenta], owner)


class _Draws:
    """The stream of random numbers that members draw from, one after the other, and where it stands."""

    def __init__(
        self,
        rng: torch.Generator,
        data: LabelledImages,
        augmentation: Sequence[str],
        batch_size: int,
        place: int | None,
    ) -> None:
        self.rng, self.augmentation, self.place = rng, augmentation, -1 if place is None else place
        self._count, self._images = len(data), torch.zeros(batch_size, 1, data.spec.size, data.spec.size)

    def move(self, place: int) -> None:
        """Go to the draws of the ``place``-th step of them all."""
        if not 0 <= self.place <= place:
            self.rng.manual_seed(self.rng.initial_seed())
            self.place = 0
        while self.place < place:  # the same numbers, for no images
            torch.randint(self._count, (len(self._images),), generator=self.rng)
            augment(self._images, self.augmentation, self.rng)
            self.place += 1


def age_member(
    state: LoopState,
    member: int,
    data: LabelledImages,
    augmentation: Sequence[str],
    steps: int,
    batch_size: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> None:
    """Train one member ``steps`` more steps at a constant rate, as the paper does before each generator step.

    Ranks share each batch.
    """
    model = compiled(state.parts["pool"][member], alone=ranks.size == 1)
    for _ in range(steps):
        _step(state, member, model, data, augmentation, AGING_LR, batch_size, device, ranks)


def oldest_members(state: LoopState, ages: Sequence[int]) -> list[nn.Module]:
    """The members at least half as old as the oldest: those whose opinions are worth storing."""
    return [member for member, age in zip(state.parts["pool"], ages, strict=True) if 2 * age >= max(ages)]


def reset_member(state: LoopState, member: int) -> None:
    """Give a member fresh weights and forget its momentum."""
    module, optimizer = state.parts["pool"][member], state.parts["optimizer"]
    with GlobalRng(int(torch.randint(1 << 31, (), generator=state.rng))):
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    for parameter in module.parameters():
        optimizer.state.pop(parameter, None)


def _step(
    state: LoopState,
    member: int,
    model: Callable[[Tensor], Tensor],
    data: LabelledImages,
    augmentation: Sequence[str],
    rate: float,
    batch_size: int,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> float:
    optimizer = state.parts["optimizer"]
    images, labels = draw_batch(data, batch_size, state.rng, device, ranks.portion)
    images = data.spec.normalize(augment(images, augmentation, state.rng, ranks.portion))
    state.parts["pool"][member].train()
    optimizer.param_groups[member]["lr"] = rate
    optimizer.zero_grad(set_to_none=True)  # SGD leaves the members without gradients alone
    with autocast(device):
        logits = model(images.contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(logits.float(), labels)
    loss.backward()
    (mean,) = ranks.average(optimizer, loss)
    optimizer.step()
    return mean
