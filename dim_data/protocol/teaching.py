"""A teacher: the classifier whose opinions become the soft labels of a generator driven by noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dim_data.generator import Generator
from dim_data.images import LabelledImages, torch_defaults
from dim_data.networks import ConvNet, GlobalRng, resolve_device
from dim_data.protocol.checkpointer import Checkpointer
from dim_data.protocol.recipes import recipe_for
from dim_data.protocol.training import ClassifierStep, train_classifier

__all__ = ["train_teacher"]


def train_teacher(
    train: Generator | LabelledImages,
    *,
    ipc: int = 10,
    epochs: int = 1000,
    seed: int = 0,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 300.0,
    on_step: Callable[[ClassifierStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ConvNet:
    """A ConvNet-3 trained by the recipe ``muon``, or by ``muon_soft`` where ``train`` has soft labels.

    Pass it to :meth:`Generator.forget_codes <dim_data.generator.Generator.forget_codes>`. A generator's own pictures
    will do: no real image need be at hand.

    Args:
        train: What it learns from: a generator, or real images as :func:`~dim_data.images.load_real` reads them, with
            the ``spec`` of the generator that will keep the teacher: its logits are in the order of their classes.
        ipc: Images per class in an epoch.
        epochs: Epochs; minutes on a CPU for the default, which shows it ``10_000 * num_classes`` images.
        seed: Of its weights, images and order.
        device: Default: CUDA where there is one.
        checkpoint: File that keeps what is done, and the teacher when all is. The same call, later, goes on from it, or
            gives that teacher again to the bit. It is not removed.
        checkpoint_seconds: Time between two writings of the file.
        on_step: Called after each training step, for progress bars.
        should_stop: Asked after each step; ``True`` writes the file and stops.

    Returns:
        The classifier, in eval mode and without gradients.

    Raises:
        StoppedError: ``should_stop`` said so.
        OSError: The file could not be written.
        ValueError: The file cannot be read, or is of another call.
    """
    soft = train.config.soft_labels if isinstance(train, Generator) else train.soft is not None
    recipe = recipe_for("muon_soft" if soft else "muon", train.spec, ipc)
    device = resolve_device(device)
    arguments = {"train": train, "recipe": recipe, "ipc": ipc, "epochs": epochs, "seed": seed}
    checkpointer = Checkpointer(checkpoint, arguments, checkpoint_seconds)
    with torch_defaults(), GlobalRng(seed):
        teacher = ConvNet(train.spec)
    steps = train_classifier(
        teacher, train, recipe, ipc=ipc, epochs=epochs, seed=seed, device=device, checkpointer=checkpointer
    )
    for step in steps:
        if on_step is not None:
            on_step(step)
        if should_stop is not None and should_stop():
            raise checkpointer.stopped(f"the training of a teacher, step {step.step} of {step.steps}")
        if step.step == step.steps:
            checkpointer.save()
    return teacher.requires_grad_(False).eval()
