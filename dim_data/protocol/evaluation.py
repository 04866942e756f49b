"""The protocol as a function: train fresh classifiers on an image source, test them on real images.

"Images per class" is a budget per epoch, as in the DiM paper: in each of ``epochs`` epochs a classifier sees
``ipc`` images of every class, new ones if the source has them. Accuracy is that of the last step, in eval
mode, with the normalisation used in training.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dim_data.generator import Generator, read_training
from dim_data.hub import in_percent
from dim_data.images import ImageSpec, LabelledImages, load_real, torch_defaults, warn_caller
from dim_data.networks import (
    ALONE,
    GlobalRng,
    RankError,
    Ranks,
    WorkQueue,
    build_classifier,
    check_int,
    classifier_builder,
    identify_classifier,
    is_int,
    own_device,
    plain,
    usual_convnet,
)
from dim_data.protocol.checkpointer import Checkpointer
from dim_data.protocol.recipes import Recipe, recipe_for
from dim_data.protocol.showing import image_source
from dim_data.protocol.states import differences
from dim_data.protocol.training import ClassifierStep, measure_accuracy, train_on

__all__ = ["Evaluation", "evaluate"]


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


def evaluate(
    train: Generator | str | Path | LabelledImages | Any,
    test: LabelledImages | Any,
    classifier: str | Callable[[ImageSpec], nn.Module] | None = None,
    recipe: str | Recipe = "tuned",
    *,
    ipc: int = 10,
    epochs: int = 1000,
    seeds: Sequence[int] = (0, 1, 2),
    refresh: float = 1.0,
    size: int | None = None,
    columns: tuple[Any, Any] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 300.0,
    alone: bool = False,
    device: str | torch.device | None = None,
    on_step: Callable[[ClassifierStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Evaluation:
    """Train fresh classifiers on ``train`` and test each once, at its last step, on ``test``.

    Killed at any moment, the same call with a ``checkpoint`` goes on from there and, on a CPU, ends with the accuracies
    of an unbroken one. The caller's autocast, ``no_grad``, default dtype and device neither change it nor are changed,
    nor are the global random numbers.

    In a process group the ranks that call it share the seeds, and all have the result; who calls it alone does them
    all, after some seconds of waiting for others. Where a seed is trained does not change what comes of it.

    Args:
        train: A :class:`~dim_data.generator.Generator`, which paints on the device where it lies, a source that
            :meth:`~dim_data.generator.Generator.from_pretrained` takes, or real images: a dataset, a pair of
            tensors, or what :func:`~dim_data.images.load_real` read (the "real, same protocol" row).
        test: Real test images, in any form that :func:`~dim_data.images.load_real` takes; where they have splits, the
            test split. Classes are matched by name.
        classifier: A name in :data:`~dim_data.networks.CLASSIFIERS`, or a callable from an
            :class:`~dim_data.images.ImageSpec` to a module, such as
            ``lambda spec: resnet18(num_classes=spec.num_classes)``. It gives logits (B, num_classes), or an object
            with these as ``logits``, as transformers' models do; one batch is tried before any training. Default: the
            ConvNet that the field uses at this size, :func:`~dim_data.networks.usual_convnet`: ``"convnet3"`` up to 32
            pixels, ``"convnet4"`` up to 64, ``"convnet5"`` above.
        recipe: A name in :data:`RECIPES` or a :class:`Recipe`.
        ipc: Images per class in each epoch.
        epochs: Epochs; ``ipc * epochs * num_classes`` images are shown in all.
        seeds: One run each: initial weights, images, order and augmentation.
        refresh: Of a generator driven by noise, the share of an epoch's images that is new in the next; see
            :class:`~dim_data.loading.DistilledDataset`.
        size: Resize and crop every real image to so many pixels: the size of what ``train`` paints.
        columns: The keys of the image and the label in the items of a dataset, where they are not found by type.
        checkpoint: A file that keeps what is done, and is removed at the end; other ranks have files beside it. Any
            number of ranks goes on from them. Classifiers that a callable builds are told apart by what it builds:
            with a checkpoint, it is called twice more. Default: none is kept.
        checkpoint_seconds: Time between two writings of it.
        alone: Train all seeds in this process, whatever process group there is.
        device: Default: CUDA where there is one, in a process group that of the rank.
        on_step: Called after each training step of this process, for progress bars.
        should_stop: Asked after each training step; ``True`` saves and stops.

    Returns:
        An :class:`Evaluation`.

    Raises:
        StoppedError: ``should_stop`` said so; what is done is saved in ``checkpoint``, if one was given.
        RankError: Another rank failed at its seed, or is gone; what is done is saved.
        OSError: ``checkpoint`` cannot be written; what was there before is intact.
        FileNotFoundError: There is no such source or folder of images.
        RuntimeError: ``device`` is a GPU, and there is none.
        ValueError: ``ipc`` or ``epochs`` is not positive, ``seeds`` is empty or names one twice, ``refresh`` is outside
            (0, 1] or below 1 with what is not driven by noise, train and test differ in size or classes, the recipe
            learns soft labels and ``train`` has none, ``checkpoint`` is damaged or of another evaluation, another rank
            asks for another one, or the classifier cannot take such images, gives logits of other classes or is not
            built afresh.
        TypeError: The classifier is a module already, takes no spec, or gives something else than logits.
    """
    ipc, epochs, seeds = plain(ipc), plain(epochs), tuple(map(plain, seeds))
    check_int("ipc", ipc, 1)
    check_int("epochs", epochs, 1)
    if classifier is not None:
        classifier_builder(classifier)  # before anything is read
    if not seeds:
        raise ValueError("seeds is empty: give at least one, such as seeds=(0,)")
    for seed in seeds:
        if not is_int(seed, -(1 << 63)) or seed >= 1 << 63:
            raise ValueError(f"a seed must be an int of 64 bits, got {seed!r}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {seeds} has one twice: the same training again says nothing of the spread")
    ranks = ALONE if alone else Ranks.present()
    device = own_device(device, ranks)
    if isinstance(train, str | Path):
        train = Generator.from_pretrained(train, device=device)
    elif not isinstance(train, Generator):
        train = load_real(train, size=size, columns=columns)
    test = load_real(test, train.spec, split="test", size=size, columns=columns)
    _warn_of_own_images(train, test)
    classifier = usual_convnet(train.spec) if classifier is None else classifier
    chosen = recipe_for(recipe, train.spec, ipc)
    shown = ipc * epochs * train.spec.num_classes
    fetch = image_source(train, shown * len(seeds), chosen.soft_labels, ipc, refresh)
    called = classifier if isinstance(classifier, str) else getattr(classifier, "__name__", "")
    identity = {"classifier": called, "recipe": chosen, "ipc": ipc, "epochs": epochs, "seeds": seeds}
    identity["refresh"] = refresh
    if not isinstance(classifier, str) and (checkpoint is not None or ranks.size > 1):  # many are called <lambda>
        identity["network"] = identify_classifier(classifier, train.spec, seeds[0], device)
    checkpointer = Checkpointer(checkpoint, {"train": train, "test": test, **identity}, checkpoint_seconds, ranks.rank)
    queue = WorkQueue(ranks, "evaluate", checkpointer.identity if ranks.size > 1 else {})
    if queue.other is not None:
        raise ValueError(
            f"ranks share an evaluation where all ask for the same, but rank {queue.other[0]} asks for another: it "
            f"differs in {differences(queue.other[1], checkpointer.identity)}. Give every rank the same, or alone=True"
        )
    model = None
    try:
        for turn in checkpointer.unfinished(ranks.size):
            if not queue.take(str(turn)):
                continue
            seed, before = seeds[turn], model
            checkpointer.select(turn)
            rng = GlobalRng(seed, device)
            with torch_defaults(), rng:
                model = build_classifier(classifier, train.spec)
            if model is before:
                raise ValueError(
                    f"the classifier's builder gave the same {type(model).__name__} again, trained already: each seed "
                    f"trains a fresh one, so build it inside, such as lambda spec: {type(model).__name__}(...)"
                )
            for record in train_on(fetch, model, train.spec, chosen, ipc, epochs, seed, device, rng, checkpointer):
                queue.beat()
                if on_step is not None:
                    on_step(record)
                if should_stop is not None and should_stop():
                    raise checkpointer.stopped(f"seed {seed}, step {record.step} of {record.steps}")
            with rng:
                checkpointer.accuracies[turn] = measure_accuracy(model, test)
            queue.report(str(turn), checkpointer.accuracies[turn])
            checkpointer.select(turn)
            if ranks.size > 1:  # the others may need hours yet
                checkpointer.save()
        for turn in range(len(seeds)):
            if turn not in checkpointer.accuracies:
                checkpointer.accuracies[turn] = queue.result(str(turn))
    except RankError:
        checkpointer.save()
        raise
    except BaseException as error:
        queue.fail(error)
        raise
    checkpointer.close()
    name = called if model is None or called not in ("", "<lambda>") else type(model).__name__
    found = tuple(checkpointer.accuracies[turn] for turn in range(len(seeds)))
    return Evaluation(name, chosen.name, ipc, epochs, seeds, found, shown, checkpointer.elapsed)


def _warn_of_own_images(train: Generator | LabelledImages, test: LabelledImages) -> None:
    """Warn if a generator is tested on the very images that it was made from, as where a folder has no test images."""
    folder = train.folder if isinstance(train, Generator) else None
    made_from = read_training(folder).get("data") if folder is not None else None
    if made_from is not None and made_from == test.fingerprint():
        warn_caller(
            "these test images are those that the generator was made from: the accuracy says nothing of others. "
            "Test on images that it has not seen"
        )
