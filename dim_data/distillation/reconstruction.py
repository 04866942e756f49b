"""The encoder and the paired loop: a decoder learns from (real image, its own reconstruction).

Matching needs something to hold on to: when both halves of a pair are the same picture, their logits can
agree exactly, which two images of one class cannot. The encoder is thrown away afterwards; what stays is a
decoder and the codes of the training images, or, for a ``noise`` generator, the Gaussians fitted to them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.choices import ReconstructionConfig
from dim_data.distillation.loops import Ema, StageStep, draw_batch
from dim_data.generator import Generator
from dim_data.images import ImageRows, ImageSpec, LabelledImages, augment, in_steps, torch_defaults
from dim_data.networks import (
    ALONE,
    GlobalRng,
    Muon,
    Ranks,
    ResidualBlock,
    autocast,
    channels_last,
    compiled,
    share_norms,
)
from dim_data.protocol import LoopState

__all__ = [
    "Encoder",
    "encode_all",
    "encode_images",
    "quantize",
    "reconstruct",
    "reconstruction",
    "reconstruction_parts",
]

MOMENTUM = 0.95
"""Of Muon, which brings the losses of the paired loops as far as AdamW does in half the steps at 32 pixels, and in a
fifth at 64."""


class Encoder(nn.Module):
    """Images to latents, a map in [-1, 1].

    Args:
        spec: The images.
        latent_shape: Of the generator: (channels, base, base).
        width: Channels at the base resolution.
    """

    def __init__(self, spec: ImageSpec, latent_shape: tuple[int, ...], width: int = 128) -> None:
        super().__init__()
        base = latent_shape[-1]
        size, channels = spec.size // 2, width // 2
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * spec.channels, channels, 3, padding=1)]
        layers += [ResidualBlock(channels)]
        while size > base:
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(channels, width, 4, 2, 1), ResidualBlock(width)]
            channels, size = width, size // 2
        layers += [ResidualBlock(channels), nn.LeakyReLU(0.2)]
        # Without the normalisation a dark image set drives every tanh to its end, where no gradient is; with it
        # all levels of a code are used about equally often.
        layers += [nn.Conv2d(channels, latent_shape[0], 1), nn.BatchNorm2d(latent_shape[0], affine=False), nn.Tanh()]
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to latents (B, *latent_shape)."""
        return self.body(images * 2 - 1)


def quantize(latents: Tensor, levels: int) -> Tensor:
    """Round latents in [-1, 1] to ``levels`` values; the gradient passes straight through."""
    rounded = ((latents + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return latents + (rounded - latents).detach()


@torch_defaults()
def reconstruction_parts(generator: Generator, ema: float, seed: int, device: torch.device) -> LoopState:
    """A fresh state of the paired loops: ``generator``, ``encoder``, ``optimizer``, averages of both nets."""
    with GlobalRng(seed):
        encoder = Encoder(generator.spec, generator.decoder.latent_shape)
    channels_last(encoder, device)
    generator.train().requires_grad_(True)
    parameters = [*generator.parameters(), *encoder.parameters()]
    optimizer = Muon(parameters, lr=0.0, momentum=MOMENTUM)  # each loop sets its rate
    return LoopState(
        {
            "generator": generator,
            "encoder": encoder,
            "optimizer": optimizer,
            "average": Ema(generator, ema),
            "average_encoder": Ema(encoder, ema),
        },
        seed,
    )


def reconstruction(generator: Generator, encoder: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], encoded, quantized and decoded again: near [0, 1], trainable."""
    latents = quantize(encoder(images).float(), generator.bank.levels)
    return generator(latents, labels).float()


@in_steps()
def reconstruct(
    state: LoopState,
    data: LabelledImages,
    config: ReconstructionConfig,
    *,
    augmentation: tuple[str, ...],
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Train encoder and decoder on pixels alone (mean absolute error), yielding after each step."""
    generator, encoder, optimizer = (state.parts[name] for name in ("generator", "encoder", "optimizer"))
    for network in (generator, encoder):
        share_norms(network, ranks)
    copy = compiled(lambda x, y: reconstruction(generator, encoder, x, y), alone=ranks.size == 1)
    while state.step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (state.step + 1) / 200)
        images, labels = draw_batch(data, config.batch_size, state.rng, device, ranks.portion)
        images = augment(images, augmentation, state.rng, ranks.portion)
        with autocast(device):
            pixels = F.l1_loss(copy(images, labels), images)
        optimizer.zero_grad(set_to_none=True)
        (5 * pixels).backward()
        (mean,) = ranks.average(optimizer, pixels)
        optimizer.step()
        state.parts["average"].update(generator)
        state.parts["average_encoder"].update(encoder)
        state.step += 1
        yield StageStep("reconstruction", state.step, config.steps, {"pixels": mean})


@in_steps(painting=True)
def encode_images(
    encoder: nn.Module, images: Tensor | ImageRows, device: torch.device, ranks: Ranks = ALONE
) -> Iterator[Tensor]:
    """Latents of images uint8 (N, C, H, W), on any device, by and by: float32 (B, *latent_shape), on ``device``.

    Each rank encodes some of them, and has them all.
    """
    encoder.eval()
    count = max(4, 256 * 32**2 // max(32, images.shape[-1]) ** 2)

    def encode(rows: slice) -> Tensor:
        with autocast(device):
            batch = (images[rows].to(device).float() / 255).contiguous(memory_format=torch.channels_last)
            return encoder(batch).float()

    yield from ranks.map(encode, [slice(start, start + count) for start in range(0, len(images), count)], device)


@torch_defaults(painting=True)
def encode_all(
    generator: Generator, encoder: nn.Module, data: LabelledImages, device: torch.device, ranks: Ranks = ALONE
) -> Generator:
    """``generator`` with the code, and the soft label if any, of every image of ``data`` stored, on ``device``."""
    soft = None if data.soft is None else data.soft.to(device)
    latents = encode_images(encoder, data.images, device, ranks)
    return generator.store(latents, data.labels.to(device), soft).to(device)
