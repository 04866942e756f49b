"""Better codes for a decoder that stays: each is changed until its picture agrees with its image.

An encoder guesses a code at one glance. A search of a few steps from there comes closer to the image in pixels and in
what classifiers make of it, and costs no byte. Nor do better soft labels: those of such classifiers, asked about the
pictures themselves. ``benchmarks/README.md`` has what both gave.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.choices import RefiningConfig
from dim_data.distillation.loops import StageStep
from dim_data.format import from_numbers, to_numbers
from dim_data.generator import Generator, opinions
from dim_data.images import ImageSpec, LabelledImages, in_steps, torch_defaults
from dim_data.networks import ALONE, Ranks, autocast, channels_last, compiled, in_float32, logits_of, resolve_device
from dim_data.protocol import LoopState

__all__ = ["refine", "refine_codes", "relabel_codes"]

PIXELS, LOGITS = 15.0, 0.04
FIRST_SHARE = 0.1
MOMENTUM = 0.5

See = Callable[[Tensor], list[Tensor]]
Loss = Callable[[Tensor, Tensor, Tensor, list[Tensor]], Tensor]


def refine_codes(
    generator: Generator,
    data: LabelledImages,
    classifiers: Sequence[nn.Module],
    *,
    looks: int = 10,
    device: str | torch.device | None = None,
    on_step: Callable[[StageStep], object] | None = None,
) -> Generator:
    """A new generator with the same decoder and codes that fit their images better.

    At each look one of the classifiers, in turn, compares the picture with the image, and those numbers of its code are
    changed by one level whose change promises most by the gradient: a tenth of them at first, fewer and fewer later.
    The loss is 15 x mean absolute error of the pixels + relative squared error of each feature map + 0.04 x root mean
    square error of the log-probabilities. A code does not depend on the others, but for rounding.

    Args:
        generator: One that stores codes.
        data: The image of each code: as many of each class, in the order of the codes. Classes are matched by name.
            Where a code is stored for every image of a training set, that is the training set.
        classifiers: Trained on such images, and with a method ``features`` as in :mod:`dim_data.networks.classifiers`.
            They come back on ``device``, in eval mode and without gradients.
        looks: At each picture.
        device: Default: CUDA where there is one.
        on_step: Called after each batch of codes.

    Returns:
        The generator, on ``device``, in eval mode.

    Raises:
        TypeError: A classifier has no such method.
        ValueError: There are no codes, no classifier or one of other classes, or ``data`` is of another size or class,
            or has another number of some class.
    """
    if not generator.source.finite:
        raise ValueError("only stored codes can be refined; this generator draws noise")
    if not classifiers or looks < 1:
        raise ValueError(f"codes are refined by at least one classifier and look, got {len(classifiers)} and {looks}")
    data = data.in_terms_of(generator.spec)
    found = torch.bincount(data.labels, minlength=len(generator.bank.counts)).tolist()
    if found != generator.bank.counts.tolist():
        raise ValueError(
            f"data must hold the image of each code, {generator.bank.counts.tolist()} of each class, got {found}"
        )
    for member in classifiers:  # torchvision's have features, too, but no list of them
        if not callable(getattr(member, "features", None)) or isinstance(member.features, nn.Module):
            raise TypeError(
                f"codes are refined under classifiers with a method features(images), which gives a list of maps and, "
                f"last, the logits, and {type(member).__name__} has none: take those of dim_data.networks"
            )
    device = resolve_device(device)
    with torch_defaults():
        state = LoopState({"generator": copy.deepcopy(generator).requires_grad_(False).eval().to(device)}, seed=0)
        members = [in_float32(channels_last(member, device)) for member in classifiers]
    for step in refine(state, data, members, RefiningConfig(looks), device=device):
        if on_step is not None:
            on_step(step)
    result: Generator = state.parts["generator"]
    result.revision = result.folder = None  # it is not what lies there any more
    return result


@torch_defaults()
@torch.no_grad()
def relabel_codes(
    generator: Generator,
    classifiers: Sequence[nn.Module],
    *,
    temperature: float = 3.0,
    batch_size: int = 512,
    device: str | torch.device | None = None,
) -> Generator:
    """A new generator with the same decoder and codes, and soft labels that fit its pictures as they are now.

    They are what classifiers say of each picture and of its mirror image, where ``spec.mirror`` allows: the mean of
    their probabilities.

    Args:
        generator: One that stores codes, with soft labels or without.
        classifiers: Take normalised images (B, C, H, W) and give logits (B, num_classes), in the order of
            ``generator.spec.classes``: best those that the codes were refined under. They come back on ``device``, in
            eval mode.
        temperature: Divides the logits: classifiers are surer of the pictures than is good to learn from.
        batch_size: Pictures painted and looked at at once.
        device: Default: CUDA where there is one.

    Returns:
        The generator, on ``device``, in eval mode.

    Raises:
        ValueError: There are no codes, no classifier or one of other classes, or the temperature is not positive.
    """
    if not generator.source.finite:
        raise ValueError("only stored codes can be labelled; this generator draws noise")
    device = resolve_device(device)
    members = [channels_last(member, device) for member in classifiers]
    painter = copy.deepcopy(generator).to(device)
    pictures = (painter.decode(rows) for rows in torch.arange(len(generator.bank.codes)).split(batch_size))
    soft = opinions(members, pictures, generator.spec, temperature)
    latents = (painter.bank.unpack(part).cpu() for part in painter.bank.codes.split(8192))
    return painter.store(latents, painter.bank.labels.cpu(), soft.cpu()).requires_grad_(False).eval().to(device)


@in_steps()
def refine(
    state: LoopState,
    data: LabelledImages,
    members: Sequence[nn.Module],
    config: RefiningConfig,
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Refine the codes of ``state.parts["generator"]`` in place, yielding after each batch of them.

    Each rank takes whole batches, as they come: what comes of them is the same with any number of ranks.

    Args:
        state: Its ``step`` counts the batches done.
        data: The image of each code, sorted by class as the codes are, or in any order that a stable sort makes so.
        members: Classifiers, on ``device``.
        config: Of the stage.
        device: Where to compute.
        ranks: Who shares the batches.
    """
    generator: Generator = state.parts["generator"]
    labels, order = torch.repeat_interleave(generator.bank.counts.cpu()), data.labels.cpu().argsort(stable=True)
    views = [_view(generator, member.eval().requires_grad_(False), data.spec) for member in members[: config.looks]]
    batches = torch.arange(len(order)).split(config.batch_size)

    def refined(rows: Tensor) -> tuple[Tensor, float]:
        images = data.images[order[rows].to(data.images.device)].to(device).float() / 255
        latents = generator.bank.unpack(generator.bank.codes[rows.to(device)])
        found = _refined(latents, generator.bank.levels, images, labels[rows].to(device), views, config.looks)
        return generator.bank.pack(found[0]), found[1]

    while state.step < len(batches):
        first, place = state.step, state.step + ranks.rank
        codes, loss = refined(batches[place]) if place < len(batches) else (None, 0.0)
        losses, parts = ranks.each("refining", loss), ranks.gather(codes, device)
        state.step = min(first + ranks.size, len(batches))
        for rows, part in zip(batches[first : state.step], parts, strict=False):
            if part is not None:
                generator.bank.codes[rows.to(device)] = part
        for step, loss in zip(range(first, state.step), losses, strict=False):
            yield StageStep("refining", step + 1, len(batches), {"refining": loss})


def _view(generator: Generator, member: Any, spec: ImageSpec) -> tuple[See, Loss]:
    """What ``member`` sees in images, and (latents, labels, images, that) to the loss of each picture (B,)."""

    def see(images: Tensor) -> list[Tensor]:
        *maps, logits = member.features(spec.normalize(images))
        return [*maps, logits_of(logits, len(images), spec.num_classes)]

    def loss(latents: Tensor, labels: Tensor, images: Tensor, seen: list[Tensor]) -> Tensor:
        pictures = generator(latents, labels)
        *real, wanted = seen
        *fake, given = see(pictures)
        total = PIXELS * (pictures.float() - images).abs().mean((1, 2, 3))
        for a, b in zip(real, fake, strict=True):
            squares = a.float().square().flatten(1).mean(1).clamp(min=1e-6)
            total = total + (a.float() - b.float()).square().flatten(1).mean(1) / squares
        logits = F.log_softmax(wanted.float(), 1) - F.log_softmax(given.float(), 1)
        return total + LOGITS * logits.square().mean(1).add(1e-6).sqrt()

    return compiled(see), compiled(loss)


def _refined(
    latents: Tensor, levels: int, images: Tensor, labels: Tensor, views: Sequence[tuple[See, Loss]], looks: int
) -> tuple[Tensor, float]:
    """Better latents on the same levels, and the mean loss at the last look."""
    images = images.contiguous(memory_format=torch.channels_last)
    values = to_numbers(latents, levels).float()
    average, last = torch.zeros_like(values), math.nan
    with torch.no_grad(), autocast(images.device):
        seen = [see(images) for see, _ in views]
    for look in range(looks):
        latents = from_numbers(values, levels).requires_grad_()
        with autocast(images.device):
            loss = views[look % len(views)][1](latents, labels, images, seen[look % len(views)])
        last = loss.mean().item()
        (gradient,) = torch.autograd.grad(loss.sum(), latents)
        average = MOMENTUM * average + gradient.float()
        # By the gradient, a level's step against it takes off as much as the gradient is large.
        moved = values - average.sign()
        gain = (average.abs() * ((moved >= 0) & (moved < levels))).flatten(1)
        share = FIRST_SHARE * (1 + math.cos(math.pi * look / looks)) / 2
        least = gain.topk(max(1, round(share * gain.shape[1])), 1).values[:, -1:]
        chosen = ((gain >= least) & (gain > 0)).view_as(values)
        values = torch.where(chosen, moved, values)
        average = average * ~chosen
    return from_numbers(values, levels), last
