"""A smaller decoder for the same latents: it learns to paint what the larger one paints.

Decoding is most of what a picture of stored codes costs. No real image is needed, and the source of latents stays as it
is, to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.loops import Ema, StageStep, checkpointed
from dim_data.distillation.matching import feature_distance, seen_errors
from dim_data.distillation.reconstruction import MOMENTUM
from dim_data.generator import Generator
from dim_data.images import digest, in_steps, torch_defaults
from dim_data.networks import (
    GlobalRng,
    Muon,
    autocast,
    channels_last,
    check_int,
    check_number,
    compiled,
    resolve_device,
)
from dim_data.protocol import Checkpointer, LoopState

__all__ = ["SLIM_STEPS", "slim_decoder"]

SLIM_STEPS = 3000
"""Of a decoder, if nobody says otherwise."""

EMA = 0.995
RISE = 100
LOGITS = 0.05
DRAWN = 1 << 20
"""Serials of a class that latents are taken from, where their source has no end."""


def slim_decoder(
    generator: Generator,
    options: Mapping[str, int],
    classifiers: Sequence[nn.Module] = (),
    *,
    steps: int = SLIM_STEPS,
    batch_size: int = 64,
    lr: float = 1e-2,
    seed: int = 0,
    device: str | torch.device | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 300.0,
    on_step: Callable[[StageStep], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generator:
    """A new generator with the same latents and labels, and a decoder of other ``options`` that paints the same.

    The loss is 5 x mean absolute error + features + 0.05 x logits of the large decoder's pictures and the small one's,
    as one of the classifiers sees them, in turn: that of the matching stage, with pictures in place of real images.

    Args:
        generator: Of any source of latents.
        options: The new decoder's, such as ``{"width": 80, "top_width": 8}``; what is left out stays as it is.
        classifiers: Trained on real images or on the generator's own pictures, and with a method ``features`` as in
            :mod:`dim_data.networks.classifiers`. Without any, only pixels are compared. They come back on ``device``,
            in eval mode and without gradients.
        steps: Steps; the rate falls to zero along a line.
        batch_size: Pictures a step.
        lr: Peak rate of Muon.
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
        ValueError: An option is unknown or out of bounds, or changes the latents; a number is out of range; or the
            file is of another call.
    """
    check_int("steps", steps, 1)
    check_int("batch_size", batch_size, 1)
    check_number("lr", lr, "(0, 1)")
    device = resolve_device(device)
    arguments = {"generator": generator, "options": dict(options), "steps": steps, "batch_size": batch_size, "lr": lr}
    arguments |= {"seed": seed, "classifiers": [digest(one.state_dict().values()) for one in classifiers]}
    with torch_defaults():
        with GlobalRng(seed):
            small = generator.with_decoder(options).to(device)
        small.decoder.requires_grad_(True)
        large = copy.deepcopy(generator).to(device).requires_grad_(False).eval()
        checkpointer = Checkpointer(checkpoint, arguments, checkpoint_seconds)
        optimizer = Muon(small.decoder.parameters(), lr, MOMENTUM)
        parts = {"decoder": small.decoder, "optimizer": optimizer, "average": Ema(small.decoder, EMA)}
        state = LoopState(parts, seed)
        checkpointer.begin(state)
    members = [channels_last(one, device).eval().requires_grad_(False) for one in classifiers]
    loop = _paint_alike(state, large, members, steps, batch_size, lr, device)
    checkpointed(loop, state, checkpointer, on_step, should_stop)
    small.decoder.load_state_dict(state.parts["average"].module.state_dict())
    return small.requires_grad_(False).eval()


@in_steps()
def _paint_alike(
    state: LoopState,
    large: Generator,
    members: Sequence[nn.Module],
    steps: int,
    batch_size: int,
    lr: float,
    device: torch.device,
) -> Iterator[StageStep]:
    """Train ``state.parts["decoder"]`` to paint as ``large`` does, yielding after each step."""
    decoder, optimizer, average = (state.parts[name] for name in ("decoder", "optimizer", "average"))
    spec, counts = large.spec, torch.full((large.spec.num_classes,), DRAWN)
    if large.source.finite:
        counts = large.bank.counts.cpu()

    def loss_terms(member: nn.Module | None, latents: Tensor, labels: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        pictures = decoder(latents, labels).float() / 2 + 0.5
        pixels = F.l1_loss(pictures, wanted)
        if member is None:
            return (pixels,)
        errors, squares, logits = seen_errors(member, spec, wanted, pictures)
        return pixels, feature_distance(errors, squares), logits

    asks = [compiled(lambda *args, member=member: loss_terms(member, *args)) for member in members or (None,)]
    paint = compiled(lambda latents, labels: large(latents, labels).float().clamp(0, 1))
    while state.step < steps:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (state.step + 1) / RISE) * (1 - state.step / steps)
        # As many of each class as there are codes of it, for a bank that is read evenly.
        labels = torch.multinomial(counts.double(), batch_size, replacement=True, generator=state.rng)
        serials = (torch.rand(batch_size, generator=state.rng, dtype=torch.float64) * counts[labels]).long()
        labels, serials = labels.to(device), serials.to(device)
        with torch.no_grad():
            latents = large.latents(labels, serials)
            if latents.ndim == 4:
                latents = latents.contiguous(memory_format=torch.channels_last)
            with autocast(device):
                wanted = paint(latents, labels).contiguous(memory_format=torch.channels_last)
        with autocast(device):
            terms = asks[state.step % len(asks)](latents, labels, wanted)
        loss = sum(weight * term for weight, term in zip((5.0, 1.0, LOGITS), terms, strict=False))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        average.update(decoder)
        state.step += 1
        losses = {name: term.item() for name, term in zip(("pixels", "features", "logits"), terms, strict=False)}
        yield StageStep("slimming", state.step, steps, losses)
