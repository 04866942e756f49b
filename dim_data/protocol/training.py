"""Training one classifier on an image source, and testing one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dim_data.generator import Generator
from dim_data.images import ImageSpec, LabelledImages, augment, in_steps, torch_defaults
from dim_data.networks import (
    GlobalRng,
    autocast,
    channels_last,
    check_classifier,
    compiled,
    in_float32,
    logits_of,
    resolve_device,
)
from dim_data.protocol.checkpointer import Checkpointer
from dim_data.protocol.recipes import Recipe, make_optimizer
from dim_data.protocol.showing import Fetch, batch_sizes, batches, image_source
from dim_data.protocol.states import LoopState

__all__ = ["ClassifierStep", "measure_accuracy", "train_classifier", "train_on"]


@dataclass(frozen=True)
class ClassifierStep:
    """One step of classifier training."""

    step: int
    steps: int
    loss: float
    seed: int = 0


def train_classifier(
    model: nn.Module,
    train: Generator | LabelledImages,
    recipe: Recipe,
    *,
    ipc: int,
    epochs: int,
    seed: int = 0,
    device: torch.device | None = None,
    checkpointer: Checkpointer | None = None,
) -> Iterator[ClassifierStep]:
    """Train ``model`` in place, yielding after each step.

    Args:
        model: Takes normalised images (B, C, H, W), gives logits; moved to ``device``.
        train: Where images come from.
        recipe: See :class:`Recipe`.
        ipc: Images per class in each epoch.
        epochs: Epochs.
        seed: Chooses images, order, augmentation and dropout.
        device: Default: CUDA where there is one.
        checkpointer: Keep the training from one step to the next, if it is to go on after a kill.

    Raises:
        TypeError: At the first step: the model gives something else than logits.
        ValueError: The recipe learns soft labels and ``train`` has none; or at the first step: the model cannot take
            such images, gives logits of other classes, or has no parameter to train.
    """
    device = resolve_device(device)
    fetch = image_source(train, ipc * epochs * train.spec.num_classes, recipe.soft_labels)
    return train_on(fetch, model, train.spec, recipe, ipc, epochs, seed, device, GlobalRng(seed, device), checkpointer)


@in_steps()
def train_on(
    fetch: Fetch,
    model: nn.Module,
    spec: ImageSpec,
    recipe: Recipe,
    ipc: int,
    epochs: int,
    seed: int,
    device: torch.device,
    rng: GlobalRng,
    checkpointer: Checkpointer | None = None,
) -> Iterator[ClassifierStep]:
    """:func:`train_classifier` on what ``fetch`` gives, dropout from ``rng``, kept by ``checkpointer`` if any."""
    size = ipc * spec.num_classes
    batch_size = min(recipe.batch_size, size)
    steps = epochs * len(batch_sizes(size, batch_size))
    with rng:
        check_classifier(model.to(device), spec)  # which gives lazy layers their shapes
        channels_last(model).train()
        optimizer = make_optimizer(model.parameters(), recipe)
        schedule = (
            torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=0.2)
            if recipe.schedule == "one-cycle" and steps > 5  # of five a fifth is no time to rise: torch divides by 0
            else None
        )
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "global_rng": rng}
        state = LoopState(parts | ({"schedule": schedule} if schedule else {}), seed + 1)
        if checkpointer is not None:
            checkpointer.begin(state)
        forward = compiled(model)
    rest = batches(fetch, spec, ipc, epochs, batch_size, seed, device, done=state.step)
    for step, (images, targets) in enumerate(rest, state.step + 1):
        with rng:
            images = spec.normalize(augment(images, recipe.augmentation, state.rng))
            with autocast(device):
                output = forward(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits_of(output, len(images), spec.num_classes).float(), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if schedule is not None and step < steps:
                schedule.step()
            state.step = step
            if checkpointer is not None:
                checkpointer.step(state)
        yield ClassifierStep(step, steps, loss.item(), seed)


@torch_defaults()
@torch.no_grad()
def measure_accuracy(model: nn.Module, test: LabelledImages, batch_size: int | None = None) -> float:
    """Share of ``test`` that ``model`` labels rightly, in eval mode; in [0, 1].

    Args:
        model: Takes normalised images (B, C, H, W), gives logits.
        test: The images.
        batch_size: Images at once; default: 200, and half as many each time that 32 pixels double.
    """
    batch_size = batch_size or 200 >> test.spec.doublings
    device = next(model.parameters()).device
    was_training = model.training
    forward, right = compiled(in_float32(model.eval())), 0
    for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size), strict=True):
        count = len(labels)
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, batch_size - count))  # one shape, compiled once
        images = test.spec.normalize(images.to(device)).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            logits = logits_of(forward(images), batch_size, test.spec.num_classes)
        right += int((logits[:count].argmax(1) == labels.to(device)).sum())
    model.train(was_training)
    return right / len(test)
