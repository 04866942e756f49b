"""An encoder for a decoder that came without one: it learns which code is stored for which image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dim_data.distillation.loops import Ema, StageStep
from dim_data.distillation.reconstruction import Encoder
from dim_data.format import from_numbers
from dim_data.generator import Generator
from dim_data.images import ImageRows, in_steps, torch_defaults
from dim_data.networks import GlobalRng, Muon, autocast, channels_last, compiled
from dim_data.protocol import LoopState

__all__ = ["ENCODER_BATCH", "encoder_parts", "fit_encoder"]

ENCODER_BATCH = 128
LR, MOMENTUM = 0.06, 0.9
EMA = 0.995


@torch_defaults()
def encoder_parts(generator: Generator, seed: int, device: torch.device) -> LoopState:
    """A fresh state of the loop: ``encoder``, ``optimizer`` and ``average``, which is what to keep."""
    with GlobalRng(seed):
        encoder = Encoder(generator.spec, generator.decoder.latent_shape)
    channels_last(encoder, device)
    optimizer = Muon(encoder.parameters(), LR, MOMENTUM)
    return LoopState({"encoder": encoder, "optimizer": optimizer, "average": Ema(encoder, EMA)}, seed)


@in_steps()
def fit_encoder(
    state: LoopState, images: Tensor | ImageRows, codes: Tensor, levels: int, steps: int, *, device: torch.device
) -> Iterator[StageStep]:
    """Train ``state.parts["encoder"]`` by the squared distance to the codes, yielding after each step.

    Args:
        state: Made by :func:`encoder_parts`.
        images: uint8 (N, C, H, W), on any device.
        codes: Those that are stored for them: uint8 (N, *latent_shape), on any device.
        levels: Values that a number of a code takes.
        steps: How many, of 128 images each; the rate falls to zero along a line.
        device: Where to compute.
    """
    encoder, optimizer, average = (state.parts[name] for name in ("encoder", "optimizer", "average"))
    distance = compiled(lambda x, wanted: F.mse_loss(encoder(x).float(), wanted))
    encoder.train()
    while state.step < steps:
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (state.step + 1) / 100) * (1 - state.step / steps)
        rows = torch.randint(len(codes), (ENCODER_BATCH,), generator=state.rng)
        batch = images[rows.to(images.device)].to(device).float() / 255
        wanted = from_numbers(codes[rows.to(codes.device)].to(device), levels)
        with autocast(device):
            loss = distance(batch.contiguous(memory_format=torch.channels_last), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update(encoder)
        state.step += 1
        yield StageStep("encoder", state.step, steps, {"codes": loss.item()})
