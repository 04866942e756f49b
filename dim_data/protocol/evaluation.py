"""The protocol as a function: train fresh classifiers on an image source, test them on real images.

"Images per class" is a budget per epoch, as in the DiM paper: in each of ``epochs`` epochs a classifier sees
``ipc`` images of every class, new ones if the source has them. Accuracy is that of the last step, in eval
mode, with the normalisation used in training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dim_data.generator import Generator
from dim_data.hub import in_percent
from dim_data.images import ImageSpec, LabelledImages, augment, load_real
from dim_data.networks import autocast, build_classifier, compiled, resolve_device
from dim_data.protocol.recipes import Recipe, make_optimizer, recipe_for
from dim_data.protocol.showing import Fetch, batch_sizes, batches, image_source
from dim_data.protocol.sittings import Sittings
from dim_data.protocol.states import LoopState

__all__ = ["ClassifierStep", "Evaluation", "evaluate", "measure_accuracy", "train_classifier"]


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` measured.

    Attributes:
        classifier: Name of the classifier.
        recipe: Name of the recipe.
        ipc: Images per class in each epoch.
        epochs: Epochs of training.
        seeds: One training run each.
        accuracies: Test accuracy of each run, in [0, 1].
        images_shown: Images a classifier saw in training, with repetition.
        seconds: Wall-clock time of all runs together.
    """

    classifier: str
    recipe: str
    ipc: int
    epochs: int
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    images_shown: int
    seconds: float

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over the seeds; 0 for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def __str__(self) -> str:
        runs = f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        return (
            f"{self.classifier}, recipe {self.recipe}, ipc {self.ipc}: {in_percent(self)} "
            f"({runs}, {self.images_shown} images shown)"
        )


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
) -> Iterator[ClassifierStep]:
    """Train ``model`` in place, yielding after each step.

    Args:
        model: Takes normalised images (B, C, H, W), gives logits; moved to ``device``.
        train: Where images come from.
        recipe: See :class:`Recipe`.
        ipc: Images per class in each epoch.
        epochs: Epochs.
        seed: Chooses images, order and augmentation.
        device: Default: CUDA where there is one.
    """
    device = resolve_device(device)
    return _train(
        model,
        image_source(train, ipc * epochs * train.spec.num_classes, recipe.soft_labels),
        train.spec,
        recipe,
        ipc,
        epochs,
        seed,
        device,
    )


def _train(
    model: nn.Module,
    fetch: Fetch,
    spec: ImageSpec,
    recipe: Recipe,
    ipc: int,
    epochs: int,
    seed: int,
    device: torch.device,
    sittings: Sittings | None = None,
) -> Iterator[ClassifierStep]:
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    size = ipc * spec.num_classes
    batch_size = min(recipe.batch_size, size)
    steps = epochs * len(batch_sizes(size, batch_size))
    optimiser = make_optimizer(model.parameters(), recipe)
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.lr, total_steps=steps, pct_start=0.2)
        if recipe.schedule == "one-cycle" and steps > 5  # a fifth of five steps is no time to rise: torch divides by 0
        else None
    )
    state = LoopState(
        {"model": model, "optimiser": optimiser, **({"schedule": schedule} if schedule else {})}, seed + 1
    )
    if sittings is not None:
        sittings.begin(state)
    forward = compiled(model)
    rest = batches(fetch, spec, ipc, epochs, batch_size, seed, device, done=state.step)
    for step, (images, targets) in enumerate(rest, state.step + 1):
        images = spec.normalize(augment(images, recipe.augmentation, state.rng))
        with autocast(device):
            logits = forward(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if schedule is not None and step < steps:
            schedule.step()
        state.step = step
        if sittings is not None:
            sittings.step(state)
        yield ClassifierStep(step, steps, loss.item(), seed)


@torch.no_grad()
def measure_accuracy(model: nn.Module, test: LabelledImages, batch_size: int = 200) -> float:
    """Share of ``test`` that ``model`` labels rightly, in eval mode; in [0, 1]."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    forward, right = compiled(model), 0
    for images, labels in zip(test.images.split(batch_size), test.labels.split(batch_size), strict=True):
        count = len(labels)
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, batch_size - count))  # one shape, compiled once
        with autocast(device):
            logits = forward(
                test.spec.normalize(images.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
            )
        right += int((logits[:count].argmax(1) == labels.to(device)).sum())
    model.train(was_training)
    return right / len(test)


def evaluate(
    train: Generator | str | Path | LabelledImages | Any,
    test: LabelledImages | Any,
    classifier: str | Callable[[ImageSpec], nn.Module] = "convnet3",
    recipe: str | Recipe = "tuned",
    *,
    ipc: int = 10,
    epochs: int = 1000,
    seeds: Sequence[int] = (0, 1, 2),
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 300.0,
    device: str | torch.device | None = None,
    on_step: Callable[[ClassifierStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Train fresh classifiers on ``train`` and test each once, at its last step, on ``test``.

    Killed at any moment, the same call with a ``checkpoint`` goes on from there and, on a CPU, ends with the accuracies
    of an unbroken one.

    Args:
        train: A :class:`~dim_data.generator.Generator`, a source that
            :meth:`~dim_data.generator.Generator.from_pretrained` takes, or real images: a dataset, a pair of
            tensors, or what :func:`~dim_data.images.load_real` read (the "real, same protocol" row).
        test: Real test images, in any form that :func:`~dim_data.images.load_real` takes.
        classifier: A name in :data:`~dim_data.networks.CLASSIFIERS`, or a callable from an
            :class:`~dim_data.images.ImageSpec` to a module, such as ``lambda spec: resnet18(num_classes=10)``.
        recipe: A name in :data:`RECIPES` or a :class:`Recipe`.
        ipc: Images per class in each epoch.
        epochs: Epochs; ``ipc * epochs * num_classes`` images are shown in all.
        seeds: One run each: initial weights, images, order and augmentation.
        checkpoint: A file that keeps what is done, and is removed at the end. Default: none is kept.
        checkpoint_seconds: Time between two writings of it.
        device: Default: CUDA where there is one.
        on_step: Called after each training step, for progress bars.
        should_stop: Asked after each training step; ``True`` saves and stops.

    Returns:
        An :class:`Evaluation`.

    Raises:
        StoppedError: ``should_stop`` said so; what is done is saved in ``checkpoint``, if one was given.
        OSError: ``checkpoint`` cannot be written; what was there before is intact.
        ValueError: ``ipc``, ``epochs`` or ``seeds`` is empty or not positive, train and test differ in shape, the
            recipe learns soft labels and ``train`` has none, or ``checkpoint`` is damaged or of another evaluation.
    """
    for name, value in (("ipc", ipc), ("epochs", epochs)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}")
    if not seeds:
        raise ValueError("seeds is empty: give at least one, such as seeds=(0,)")
    place = resolve_device(device)
    if isinstance(train, str | Path):
        train = Generator.from_pretrained(train, device=place)
    elif not isinstance(train, Generator):
        train = load_real(train)
    test = load_real(test, train.spec)
    wanted, found = ((s.channels, s.size, s.num_classes) for s in (train.spec, test.spec))
    if wanted != found:
        raise ValueError(f"train and test images differ in (channels, size, classes): {wanted} and {found}")
    test = replace(test, spec=train.spec)  # normalised as in training
    chosen = recipe_for(recipe, train.spec, ipc)
    shown = ipc * epochs * train.spec.num_classes
    fetch = image_source(train, shown * len(seeds), chosen.soft_labels)
    called = classifier if isinstance(classifier, str) else getattr(classifier, "__name__", "")
    identity = {"classifier": called, "recipe": chosen, "ipc": ipc, "epochs": epochs, "seeds": tuple(seeds)}
    sittings = Sittings(checkpoint, {"train": train, "test": test, **identity}, checkpoint_seconds)
    for seed in seeds[len(sittings.accuracies) :]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_classifier(classifier, train.spec)
            for record in _train(model, fetch, train.spec, chosen, ipc, epochs, seed, place, sittings):
                if on_step is not None:
                    on_step(record)
                if should_stop is not None and should_stop():
                    raise sittings.stopped(f"seed {seed}, step {record.step} of {record.steps}")
        sittings.accuracies.append(measure_accuracy(model, test))
    sittings.close()
    name = called or type(model).__name__
    return Evaluation(name, chosen.name, ipc, epochs, tuple(seeds), tuple(sittings.accuracies), shown, sittings.elapsed)
