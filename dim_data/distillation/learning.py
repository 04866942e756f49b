"""A prior for a decoder that was made before: learned from the codes that are stored, and from their images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from dim_data.distillation.choices import PriorTrainingConfig
from dim_data.distillation.clusters import describe_images
from dim_data.distillation.encoding import ENCODER_BATCH, encoder_parts, fit_encoder
from dim_data.distillation.loops import StageStep, checkpointed
from dim_data.distillation.prior_training import PriorTraining, prior_training_on_images
from dim_data.format import to_numbers
from dim_data.generator import Generator, check_teacher, drawn_rows
from dim_data.images import LabelledImages, digest, torch_defaults
from dim_data.networks import channels_last, in_float32, resolve_device
from dim_data.protocol import Checkpointer, LoopState

__all__ = ["learn_prior"]

ENCODER_PASSES = 3
"""Over the images, for an encoder of codes that came without one."""


def learn_prior(
    generator: Generator,
    classifier: nn.Module | None = None,
    teacher: nn.Module | None = None,
    config: PriorTrainingConfig | None = None,
    *,
    images: LabelledImages | None = None,
    holdout: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 300.0,
    on_step: Callable[[StageStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generator:
    """A new generator with the same decoder that draws codes for ever, as a prior learned them from the stored ones.

    No real image is needed, nor is a code kept. With the real ones the prior is better: an encoder learns which code
    is stored for which image, and gives the prior codes of mirrored and shifted images besides, or of turned ones.

    Args:
        generator: One that stores codes.
        classifier: Clusters the pictures of a class by what it sees; with a method ``features`` as in
            :mod:`dim_data.networks.classifiers`, and logits in the order of ``generator.spec.classes``. ``None``:
            classes are not parted. It is moved to ``device`` and put into eval mode.
        teacher: Gives the soft labels; see :meth:`~dim_data.generator.Generator.with_prior`.
        config: Of the training; the defaults choose sizes by the number of codes.
        images: The real images whose codes are stored: one for each, in the order of the bank. Classes are matched by
            name. They are mirrored where ``spec.mirror`` allows.
        holdout: Share of the codes of each class that are not learned, but looked at to choose when to stop: at least
            one, never all. 0 holds none out.
        seed: Of everything random.
        device: Default: CUDA where there is one.
        checkpoint: File that keeps what is done, and the result when all is. The same call, later, goes on from it, or
            gives that result again to the bit. It is not removed: do so when the result is saved.
        checkpoint_seconds: Time between two writings of the file.
        on_step: Called after each step.
        should_stop: Asked after each step; ``True`` writes the file and stops.

    Returns:
        The generator, on ``device``, in eval mode.

    Raises:
        StoppedError: ``should_stop`` said so.
        OSError: The file could not be written.
        ValueError: There are no codes, ``images`` are not those of the codes, ``holdout`` is not in [0, 1), ``config``
            leaves the training out or turns images where none are given, the teacher is another network, or the file
            is of another call.
    """
    bank, config = generator.bank, config or PriorTrainingConfig()
    if not 0 <= holdout < 1 or not config.epochs:
        raise ValueError(f"holdout must be in [0, 1) and epochs positive, got {holdout} and {config.epochs}")
    if config.turned and images is None:
        raise ValueError("codes cannot be turned: give the images that they are of, or leave prior.turned off")
    if teacher is not None:
        check_teacher(teacher, generator.spec)  # before hours are spent
    if images is not None:
        images = images.in_terms_of(generator.spec)
        if not torch.equal(images.labels.cpu(), bank.labels.cpu()):
            raise ValueError(
                f"images must be those whose codes are stored, {len(bank)} class by class, got {len(images)} of other "
                f"classes or in another order: labels must be equal to generator.bank.labels, by the names of "
                f"generator.spec.classes"
            )
    device = resolve_device(device)
    arguments = {"generator": generator, "config": config, "images": images, "holdout": holdout, "seed": seed}
    arguments["classifier"] = None if classifier is None else digest(classifier.state_dict().values())
    held = _held_out(generator, holdout, seed)
    arguments["held_out"] = digest([held])
    checkpointer = Checkpointer(checkpoint, arguments, checkpoint_seconds)
    with torch_defaults():
        painter = copy.deepcopy(generator).to(device)
        if classifier is not None:
            classifier = in_float32(channels_last(classifier, device))
        parts: dict[str, LoopState] = {}
        loops: list[Iterator[StageStep]] = []
        codes = torch.cat([to_numbers(bank.unpack(part), bank.levels).cpu() for part in bank.codes.split(8192)])
        if images is None:
            training = _of_codes(painter, codes, held, classifier, config, seed, device)
        else:
            parts["encoder"] = encoder_parts(painter, seed, device)
            # Those to learn from first.
            order = held.byte().argsort(stable=True)
            train, held_out = (images.subset(part) for part in order.split([int((~held).sum()), int(held.sum())]))
            steps = max(1, round(ENCODER_PASSES * len(train) / ENCODER_BATCH))
            learned = codes[order[: len(train)]]
            loops.append(fit_encoder(parts["encoder"], train.images, learned, bank.levels, steps, device=device))
            training = prior_training_on_images(
                painter,
                parts["encoder"].parts["average"].module,
                train,
                held_out,
                classifier,
                config,
                stored=codes[order],
                mirror=generator.spec.mirror,
                seed=seed,
                device=device,
            )
        parts["prior"] = training.state
        loops.append(training.steps())
        whole = LoopState(parts, seed)
        checkpointer.begin(whole)
    checkpointed(chain(*loops), whole, checkpointer, on_step, should_stop)
    return painter.with_prior(training.result, teacher)


@torch_defaults()
def _held_out(generator: Generator, fraction: float, seed: int) -> Tensor:
    """Which of the stored codes are held out, bool (N,) on the CPU; a class with one code keeps it."""
    counts = generator.bank.counts.cpu()
    shares = (counts.double() * fraction).round().long().clamp(min=int(fraction > 0)).minimum(counts - 1)
    held = torch.zeros(len(generator.bank), dtype=torch.bool)
    held[drawn_rows(generator, shares, seed).cpu()] = True
    return held


def _of_codes(
    generator: Generator,
    codes: Tensor,
    held: Tensor,
    classifier: nn.Module | None,
    config: PriorTrainingConfig,
    seed: int,
    device: torch.device,
) -> PriorTraining:
    """A training on the stored ``codes`` alone, whose pictures the ``classifier`` sees."""
    sight = None
    if classifier is not None:
        pictures = (generator.decode(rows) for rows in torch.arange(len(codes)).split(500))
        sight = describe_images(classifier, pictures, generator.spec, device)
    return PriorTraining.of(generator, codes, generator.bank.labels.cpu(), held, sight, config, seed, device)
